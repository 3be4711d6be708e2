"""Decoding of a corpus's images in a few long-lived processes with limits, where a hostile one does no harm.

The processes run decode_worker.py. A picture that exceeds the memory or the time, or ends its process, is tried once
more in a fresh process (another program may have been the cause) and then rejected alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from components.data.content_config import ImagesConfig
from components.data.ingest.decode_worker import Decoded, DecodeFailure, decode, read_message, write_messages
from core.images import TOO_MUCH_MEMORY, PreparedImage

ROOT = Path(__file__).resolve().parents[3]
TOO_SLOW, ENDED = "image takes too long to decode", "image ends the process that decodes it"
TRIES = 2
STARTS_WITHIN_S = 120.0
# Sent to a process at once: one by one, small pictures would wait for the pipe longer than they take to decode.
BATCH_IMAGES, BATCH_BYTES, BATCH_ITEMS = 16, 4 * 2**20, 64

T = TypeVar("T")


def decode_many(
    items: Iterable[T],
    images_of: Callable[[T], Sequence[bytes]],
    *,
    side_px: int,
    rules: ImagesConfig,
    num_workers: int,
) -> Generator[tuple[T, tuple[Decoded, ...]]]:
    """Every item in order, with what became of each of its images; items without images pass through.

    num_workers: decoding processes, started with the first image; 0 decodes here, without limits of memory and time.
    Held at a time: 2 num_workers + 1 batches, each of at most BATCH_BYTES of images and one item more.
    """
    if num_workers == 0:
        for item in items:
            yield item, tuple(decode(data, side_px, rules) for data in images_of(item))
        return
    with _Pool(side_px, rules, num_workers) as pool:
        waiting: deque[tuple[list[tuple[T, int]], Future[list[Decoded]]]] = deque()
        for counted, images in _batches(items, images_of):
            waiting.append((counted, pool.submit(images)))
            if len(waiting) > 2 * num_workers:
                yield from _with_results(*waiting.popleft())
        while waiting:
            yield from _with_results(*waiting.popleft())


def _batches(
    items: Iterable[T], images_of: Callable[[T], Sequence[bytes]]
) -> Iterator[tuple[list[tuple[T, int]], list[bytes]]]:
    """Items, each with the number of its images, and the images of all of them."""
    counted, batch, num_bytes = [], [], 0
    for item in items:
        images = images_of(item)
        counted.append((item, len(images)))
        batch.extend(images)
        num_bytes += sum(map(len, images))
        if len(batch) >= BATCH_IMAGES or num_bytes >= BATCH_BYTES or len(counted) >= BATCH_ITEMS:
            yield counted, batch
            counted, batch, num_bytes = [], [], 0
    if counted:
        yield counted, batch


def _with_results(counted: list[tuple[T, int]], future: Future[list[Decoded]]) -> Iterator[tuple[T, tuple[Decoded, ...]]]:
    results, start = future.result(), 0
    for item, number in counted:
        yield item, tuple(results[start : start + number])
        start += number


class _Pool:
    """A thread a process, which sends batches and reads answers, and one more that kills a process past its deadline."""

    def __init__(self, side_px: int, rules: ImagesConfig, num_workers: int) -> None:
        self._settings = json.dumps({"side_px": side_px, "rules": dataclasses.asdict(rules)}).encode()
        self._seconds = rules.decoder_seconds
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")
        self._of_thread = threading.local()
        self._processes: set[_Process] = set()
        self._closed = threading.Event()
        threading.Thread(target=self._keep_deadlines, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closed.set()
        # Before the threads are waited for: one may read from a process about a picture that nobody wants any more.
        for process in list(self._processes):
            process.kill(ENDED)
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.close()

    def submit(self, images: list[bytes]) -> Future[list[Decoded]]:
        """A result for each image, in order."""
        if images:
            return self._threads.submit(self._decode_all, images)
        nothing: Future[list[Decoded]] = Future()
        nothing.set_result([])
        return nothing

    def _decode_all(self, images: list[bytes]) -> list[Decoded]:
        results: list[Decoded] = []
        tries = 0
        while len(results) < len(images) and not self._closed.is_set():
            at = len(results)
            process = self._process()
            try:
                process.decode(images[at:], self._seconds, results)
            except _EndedError as ended:
                self._bury(process)
                # Pictures before the one at fault have their results; those behind it go to the next process.
                tries = tries + 1 if len(results) == at else 1
                if tries == TRIES:
                    results.append(DecodeFailure(str(ended)))
                    tries = 0
        return results

    def _process(self) -> _Process:
        """This thread's process, started where it has none."""
        if not hasattr(self._of_thread, "process"):
            self._of_thread.process = process = _Process()
            self._processes.add(process)
            process.start(self._settings)
        return self._of_thread.process

    def _bury(self, process: _Process) -> None:
        process.close()
        self._processes.discard(process)
        del self._of_thread.process

    def _keep_deadlines(self) -> None:
        while not self._closed.wait(0.1):
            for process in list(self._processes):
                if time.monotonic() > process.deadline_s:
                    process.kill(TOO_SLOW)


class _EndedError(RuntimeError):
    """The process has ended, or must; the message is the reason for the picture it was at."""


class _Process:
    """One decoding process and its pipes. deadline_s: when to kill it, by time.monotonic."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "components.data.ingest.decode_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._popen.stdin and self._popen.stdout
        self._to, self._from = self._popen.stdin, self._popen.stdout
        self._reason = ENDED
        self.deadline_s = math.inf

    def start(self, settings: bytes) -> None:
        """Wait until it is ready; a RuntimeError where it does not come to that."""
        self.deadline_s = time.monotonic() + STARTS_WITHIN_S
        try:
            write_messages(self._to, settings)
            read_message(self._from)
        except OSError:
            self.kill(ENDED)
            raise RuntimeError("the process that decodes images does not start; what it said stands above") from None
        self.deadline_s = math.inf

    def decode(self, images: list[bytes], seconds: float, results: list[Decoded]) -> None:
        """Append a result for each image; _EndedError at the first one without an answer."""
        self.deadline_s = time.monotonic() + seconds
        try:
            write_messages(self._to, len(images).to_bytes(8, "little"), *images)
            for _ in images:
                self.deadline_s = time.monotonic() + seconds
                results.append(self._answer())
        except (OSError, ValueError):
            raise _EndedError(self._reason) from None
        finally:
            self.deadline_s = math.inf

    def kill(self, reason: str) -> None:
        """End the process; the thread that waits for its answer gets the first reason given."""
        if self._popen.poll() is None:
            self._reason = reason
            self._popen.kill()
        self._popen.wait()

    def close(self) -> None:
        """End the process and close its pipes, which no other thread may be using."""
        self.kill(ENDED)
        for pipe in (self._to, self._from):
            # What was not written yet cannot be.
            with suppress(OSError):
                pipe.close()

    def _answer(self) -> Decoded:
        answer = json.loads(read_message(self._from))
        if "reason" not in answer:
            return PreparedImage(read_message(self._from), tuple(answer["notes"]))
        if answer["reason"] == TOO_MUCH_MEMORY:
            # What earlier pictures left behind may be the cause; a fresh process makes the answer the same every time.
            raise _EndedError(TOO_MUCH_MEMORY)
        return DecodeFailure(answer["reason"])
