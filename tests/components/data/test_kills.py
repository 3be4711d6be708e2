"""Encoding that is killed at random moments, and run again, ends in the same bytes."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path

import numpy as np

from benchmarks.data.corpus import Corpus
from benchmarks.faults.killed_encoding import digests, killed_and_resumed
from components.data.encode.assembly import Assembly, assemble
from components.data.encode.encoding import PartEncoder, plan, unfinished

NUM_KILLS = 10
ASSEMBLY = Assembly(weights={"made": 1.5}, text_to_image_ratio=0.0, shard_bytes=60_000, ancestors={"autoencoder": "a" * 64})


def test_ten_kills_at_random_moments_change_no_byte(encoded, tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    encoder = PartEncoder(encoded.sources, encoded.settings)
    started_s = time.monotonic()
    work_through(encoder, encoded, tmp_path / "undisturbed")
    whole_s = time.monotonic() - started_s
    expected = digests(tmp_path / "undisturbed" / "latents")

    kills = rounds = 0
    while kills < NUM_KILLS:
        folder = tmp_path / f"round{rounds}"
        rounds += 1
        while was_killed(encoder, encoded, folder, after_s=float(generator.uniform(0, whole_s))):
            kills += 1
        assert digests(folder / "latents") == expected
    print(f"{kills} kills in {rounds} rounds")


def was_killed(encoder: PartEncoder, encoded, folder: Path, *, after_s: float) -> bool:
    """Do what is left in a process of its own, which is killed after a while; False where it ended before."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work_through(encoder, encoded, folder)
            code = 0
        finally:
            os._exit(code)
    time.sleep(after_s)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def work_through(encoder: PartEncoder, encoded, folder: Path) -> None:
    for item in unfinished(plan(encoded.sources, folder / "work")):
        encoder(item)
    assemble(encoded.sources, encoded.settings, ASSEMBLY, folder / "work", folder / "latents")


def test_the_stage_and_a_worker_killed_give_the_bytes_of_one_process(tmp_path: Path) -> None:
    corpus = Corpus(num_documents=360, side_px=16, documents_per_file=6, seed=secrets.randbits(20))
    print(f"seed {corpus.seed}")
    overrides = ("train.model.patch_side=2", "encode.shard_mib=1")
    # Two workers, one of them killed, and then the stage; one process does the rest, and one did it all undisturbed.
    outcome = killed_and_resumed(tmp_path, ["worker", "driver"], corpus, overrides, finish_here=True)
    assert (outcome.made, outcome.starts) == (2, 1)
    assert outcome.same
