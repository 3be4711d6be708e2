"""What is saved is what was there at the call, a write that fails is said and leaves nothing, and no damage is ever loaded."""

from __future__ import annotations

import errno
import json
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from components.runtime.diagnosis import sentence_of
from components.training.checkpoint_folders import checkpoints, folder_of
from components.training.checkpointer import Checkpointer
from components.training.checkpoints import KIND, checked, load_state
from core.errors import BadInput
from core.manifest import write_manifest
from tests.components.training.tiny_state import ALONE, TinyState, after, assert_same, restored, save, values

# Of the five hundred that docs/training.md counts, as many as are over in a second.
NUM_FLIPS, NUM_PLACES = 60, 12


def test_what_is_saved_is_what_was_there_at_the_call(tmp_path: Path) -> None:
    state, go = after(2, seed=1, width=2000), threading.Event()
    with Checkpointer(tmp_path, state, ALONE, print) as checkpointer:
        # Nothing is written before training has gone on.
        checkpointer._thread.submit(go.wait)
        expected = values(state)
        checkpointer.save(2)
        state.step(3)
        later = values(state)
        assert not any(tmp_path.iterdir())
        go.set()
        # Into the same buffers, which the first one must have left by then.
        checkpointer.save(3)
        state.step(4)
    for step, each in ((2, expected), (3, later)):
        loaded = TinyState(seed=7, width=2000)
        assert load_state(folder_of(tmp_path, step), loaded) == step
        assert_same(values(loaded), each)


def test_a_resumed_run_takes_the_same_steps(tmp_path: Path) -> None:
    whole, state = after(3, seed=2), after(3, seed=2)
    save(tmp_path, state, 3)
    again = after(1, seed=5)
    assert restored(tmp_path, again, []) == 3
    assert [again.step(number) for number in range(4, 9)] == [whole.step(number) for number in range(4, 9)]
    assert_same(values(again), values(whole))


def test_moments_that_the_checkpoint_has_not_are_forgotten(tmp_path: Path) -> None:
    save(tmp_path, TinyState(seed=3), 1)
    trained = after(4, seed=3)
    restored(tmp_path, trained, [])
    fresh = TinyState(seed=3)
    assert [trained.step(number) for number in (1, 2)] == [fresh.step(number) for number in (1, 2)]


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """As on a disk that is full from there on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def saved_on_a_full_disk(store: Path, state: TinyState) -> None:
    """A checkpoint, a second one that fails while training goes on, and a third that fails as training ends."""
    with Checkpointer(store, state, ALONE, print) as checkpointer:
        checkpointer.save(1)
        checkpointer.wait()
        with largest_file(20_000):
            checkpointer.save(2)
            with pytest.raises(OSError) as at_the_next:
                checkpointer.save(3)
            assert at_the_next.value.errno == errno.EFBIG
            assert [path.name for path in store.iterdir()] == ["step-00000001"]
            checkpointer.save(4)
            assert checkpointer._written is not None and checkpointer._written.exception()


def test_a_write_that_fails_is_raised_by_the_next_call_and_leaves_nothing(tmp_path: Path) -> None:
    state = after(2, seed=4, width=2000)
    with pytest.raises(OSError, match=r"partial-.*safetensors") as raised:
        saved_on_a_full_disk(tmp_path, state)
    assert "the file grew beyond what this system allows" in (sentence_of(raised.value) or "")
    assert restored(tmp_path, TinyState(seed=1, width=2000), []) == 1
    save(tmp_path, state, 5)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000005", "step-00000001"]


def interrupted(store: Path) -> None:
    """By the user, when a write has failed that nobody knows of yet."""
    with Checkpointer(store, TinyState(seed=1), ALONE, print) as checkpointer:
        checkpointer.save(1)
        raise KeyboardInterrupt


def test_a_failure_of_training_comes_before_one_of_writing(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "store")


def test_a_kill_at_any_place_of_the_writing_leaves_a_whole_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.components.training.killed_writing", str(tmp_path), str(NUM_PLACES)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["places"] == NUM_PLACES and found["lines"] > 100 * NUM_PLACES / 12
    assert not found["problems"], found["problems"]


def flipped(folder: Path, number: int, seed: int) -> list[str]:
    """Turn bits of one random byte at a time, in every file in turn; what was not found."""
    generator, missed = np.random.default_rng(seed), list[str]()
    paths = sorted(folder.iterdir())
    for turn in range(number):
        path = paths[turn % len(paths)]
        right = path.read_bytes()
        wrong = bytearray(right)
        at = int(generator.integers(len(wrong)))
        wrong[at] ^= int(generator.integers(1, 256))
        path.write_bytes(wrong)
        try:
            checked(folder)
            missed.append(f"{path.name}, byte {at}")
        except BadInput as error:
            if path.name not in str(error):
                missed.append(f"{path.name}, byte {at}: {error}")
        path.write_bytes(right)
    return missed


def test_every_flipped_byte_is_found_and_named(tmp_path: Path) -> None:
    seed = int(np.random.default_rng().integers(2**31))
    print(f"seed {seed}")
    folder = save(tmp_path, after(2, seed=1), 2)
    assert flipped(folder, NUM_FLIPS, seed) == []
    checked(folder)


@pytest.mark.parametrize("harm", ["cut", "missing", "added", "no manifest", "empty"])
def test_what_is_not_whole_is_passed_over_in_a_sentence(tmp_path: Path, harm: str) -> None:
    older = after(1, seed=6)
    save(tmp_path, older, 1)
    newest = save(tmp_path, after(2, seed=6), 2)
    weights = newest / "model.rank-0.safetensors"
    if harm == "cut":
        weights.write_bytes(weights.read_bytes()[:-3])
    elif harm == "missing":
        weights.unlink()
    elif harm == "added":
        # Its header may name any tensor: what reads the folder would take it from there.
        save_file({"model/0.weight": torch.zeros(6, 5)}, newest / "model.rank-1.safetensors")
    elif harm == "no manifest":
        (newest / "manifest.json").unlink()
    else:
        for path in newest.iterdir():
            path.unlink()
    loaded, said = TinyState(seed=8), list[str]()
    assert restored(tmp_path, loaded, said) == 1
    assert_same(values(loaded), values(older))
    assert "checkpoint step-00000002 is passed over" in said[0] and "\n" not in said[0]
    assert checkpoints(tmp_path) == [folder_of(tmp_path, 1)]


def test_checkpoints_of_another_form_or_model_are_refused_in_a_sentence(tmp_path: Path) -> None:
    old = folder_of(tmp_path / "old", 3)
    old.mkdir(parents=True)
    save_file({"0.weight": torch.zeros(6, 5)}, old / "model.safetensors")
    write_manifest(old, kind=KIND, step=3)
    said = list[str]()
    assert restored(tmp_path / "old", TinyState(seed=1), said) == 0
    assert "was written by another version of this program" in said[0]
    save(tmp_path / "other", after(1, seed=1, width=9), 1)
    state = after(1, seed=1)
    before = values(state)
    with pytest.raises(BadInput, match="is of another model"):
        restored(tmp_path / "other", state, [])
    assert_same(values(state), before)
