"""Decoding processes give what decoding here gives, and only the pictures at fault go missing when one dies."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from components.data.ingest.decode_pool import BATCH_ITEMS, ENDED, TOO_SLOW, decode_many
from components.data.ingest.decode_worker import Decoded, DecodeFailure
from core.images import TOO_MUCH_MEMORY, PreparedImage
from core.png import encode_png
from tests.components.data.corpora import IMAGES

SIDE_PX = 16
ROOT = Path(__file__).resolve().parents[4]


class Item:
    """What a reader hands on: a name and some images."""

    def __init__(self, name: int, images: list[bytes]) -> None:
        self.name, self.images = name, images


def run(items: list[Item], *, num_workers: int, rules=IMAGES) -> list[tuple[int, tuple[Decoded, ...]]]:
    found = decode_many(items, lambda item: item.images, side_px=SIDE_PX, rules=rules, num_workers=num_workers)
    return [(item.name, results) for item, results in found]


def small(generator: np.random.Generator) -> bytes:
    return encode_png(generator.integers(0, 256, (20, 24, 3), np.uint8))


@cache
def heavy() -> bytes:
    """A picture within the limits that takes 700 MiB and a second to make a square of."""
    buffer = io.BytesIO()
    Image.new("RGBA", (7_900, 7_900)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def made_items(number: int, seed: int) -> list[Item]:
    """Items with no, one or three images, some of them broken."""
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    items = []
    for name in range(number):
        images = [small(generator) for _ in range((0, 1, 1, 3)[name % 4])]
        if images and name % 7 == 0:
            images[0] = images[0][: len(images[0]) // 2]
        items.append(Item(name, images))
    return items


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "decode_worker" in " ".join(_command(child))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def watched() -> Iterator[list[int]]:
    """Resident bytes of decoding processes, seen every few milliseconds while the block runs."""
    seen, stop = [0], threading.Event()

    def look() -> None:
        while not stop.wait(0.005):
            for child in children():
                with suppress(psutil.Error):
                    seen.append(child.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_processes_give_what_decoding_here_gives_in_order(num_workers: int) -> None:
    items = made_items(300, seed=3)
    found = run(items, num_workers=num_workers)
    assert found == run(items, num_workers=0)
    assert [name for name, _ in found] == list(range(300))
    kinds = {type(result) for _, results in found for result in results}
    assert kinds == {PreparedImage, DecodeFailure}
    assert not children()


def test_items_without_images_start_no_process() -> None:
    found = decode_many(range(500), lambda _: [], side_px=SIDE_PX, rules=IMAGES, num_workers=2)
    for item, results in found:
        assert results == ()
        if item == 250:
            assert not children()


def test_a_picture_that_needs_too_much_memory_is_set_aside_alone() -> None:
    generator = np.random.default_rng(5)
    items = [Item(name, [small(generator)]) for name in range(20)]
    items[7] = Item(7, [small(generator), heavy(), small(generator)])
    rules = dataclasses.replace(IMAGES, decoder_memory_mib=256)
    with watched() as peak_rss:
        found = run(items, num_workers=1, rules=rules)
    failures = [(name, at) for name, results in found for at, result in enumerate(results) if isinstance(result, DecodeFailure)]
    assert failures == [(7, 1)]
    assert found[7][1][1] == DecodeFailure(TOO_MUCH_MEMORY)
    # Of 700 MiB that it would take; code and libraries are shared with other programs and count here too.
    assert 0 < max(peak_rss) < 400 * 2**20


def test_a_picture_that_takes_too_long_is_set_aside_alone() -> None:
    generator = np.random.default_rng(6)
    items = [Item(name, [heavy() if name == 3 else small(generator)]) for name in range(8)]
    rules = dataclasses.replace(IMAGES, decoder_seconds=0.4)
    found = run(items, num_workers=1, rules=rules)
    assert found[3][1] == (DecodeFailure(TOO_SLOW),)
    assert sum(isinstance(result, PreparedImage) for _, (result,) in found) == 7


def test_a_killed_process_loses_nothing() -> None:
    items = made_items(400, seed=7)
    found, killed = [], 0
    decoded = decode_many(items, lambda item: item.images, side_px=SIDE_PX, rules=IMAGES, num_workers=2)
    for item, results in decoded:
        found.append((item.name, results))
        if item.name in (50, 150, 250):
            for child in children()[:1]:
                child.kill()
                killed += 1
    assert killed == 3
    assert found == run(items, num_workers=0)


def test_a_picture_that_ends_every_process_is_set_aside_alone() -> None:
    """Here something outside ends each process that takes much memory, as the kernel does when it runs out."""
    generator = np.random.default_rng(8)
    items = [Item(name, [heavy() if name == 5 else small(generator)]) for name in range(12)]
    stop = threading.Event()

    def kill_large() -> None:
        while not stop.wait(0.002):
            for child in children():
                with suppress(psutil.Error):
                    if child.memory_info().rss > 150 * 2**20:
                        child.kill()

    killer = threading.Thread(target=kill_large)
    killer.start()
    try:
        found = run(items, num_workers=1)
    finally:
        stop.set()
        killer.join()
    assert found[5][1] == (DecodeFailure(ENDED),)
    assert sum(isinstance(result, PreparedImage) for _, (result,) in found) == 11


def test_no_more_is_read_ahead_than_is_said() -> None:
    generator = np.random.default_rng(9)
    image, pulled = small(generator), 0

    def endless() -> Iterator[int]:
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    decoded = decode_many(endless(), lambda _: [image], side_px=SIDE_PX, rules=IMAGES, num_workers=2)
    for number, _ in decoded:
        assert pulled - number <= 5 * BATCH_ITEMS
        if number == 600:
            break
    decoded.close()
    wait_until(lambda: not children())


def test_processes_end_with_a_killed_parent() -> None:
    script = """
import sys
from components.data.ingest.decode_pool import decode_many
from core.images import OWN_RULES
from core.png import encode_png
from tests.components.data.corpora import IMAGES
from core.png import encode_png
import numpy as np
image = encode_png(np.zeros((20, 20, 3), np.uint8))
for number, _ in enumerate(decode_many(iter(int, 1), lambda _: [image], side_px=16, rules=IMAGES, num_workers=2)):
    if number == 100:
        print("under way", flush=True)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    assert parent.stdout and parent.stdout.readline() == b"under way\n"
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    psutil.wait_procs(workers, timeout=20)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
