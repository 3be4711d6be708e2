"""Packing: rows hold whole documents, every document stands once, and rows are as full as promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.encode.packing import Packing, fill, open_packing, pack, write_packing
from components.data.shards import write_arrays
from core.errors import BadInput


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 64), max_size=120))
def test_every_document_stands_once_and_no_row_overflows(lengths: list[int]) -> None:
    length = np.array(lengths, np.int64)
    packing = pack(length, 64)
    assert sorted(packing.document.tolist()) == list(range(len(lengths)))
    assert packing.row_at[0] == 0
    assert packing.row_at[-1] == len(lengths)
    used = [length[packing.document[a:b]].sum() for a, b in zip(packing.row_at[:-1], packing.row_at[1:], strict=True)]
    assert all(0 < total <= 64 for total in used)
    assert fill(packing, 64) == pytest.approx(sum(used) / (64 * len(used)) if used else 0.0)
    assert_intervals_tile(packing, length)


def assert_intervals_tile(packing: Packing, lengths: np.ndarray) -> None:
    """The stored intervals stand one after the other from each row's start, each as long as its document."""
    assert packing.length.tolist() == lengths[packing.document].tolist()
    for a, b in zip(packing.row_at[:-1], packing.row_at[1:], strict=True):
        ends = np.cumsum(packing.length[a:b])
        assert packing.start[a:b].tolist() == [0, *ends[:-1].tolist()]


def test_copies_stand_as_often_as_asked_for() -> None:
    print("seed 9")
    generator = np.random.default_rng(9)
    lengths, repeats = generator.integers(1, 33, 300), generator.integers(0, 4, 300)
    packing = pack(lengths, 64, repeats)
    assert np.bincount(packing.document, minlength=300).tolist() == repeats.tolist()
    assert_intervals_tile(packing, lengths)
    for first, end in zip(packing.row_at[:-1], packing.row_at[1:], strict=True):
        assert len(set(packing.document[first:end].tolist())) == end - first
    assert fill(packing, 64) == pytest.approx((lengths * repeats).sum() / (64 * (len(packing.row_at) - 1)))
    assert len(pack(lengths, 64, np.zeros(300, np.int64)).row_at) == 1


MIXED = {
    "uniform": lambda generator, number: generator.integers(16, 4097, number),
    "log-uniform": lambda generator, number: np.exp(generator.uniform(np.log(16), np.log(4096.999), number)).astype(np.int64),
    "half captioned images": lambda generator, number: np.concatenate(
        [256 + generator.integers(16, 100, number // 2), generator.integers(16, 4097, number - number // 2)]
    ),
    "captions alone": lambda generator, number: generator.integers(16, 90, number),
    "pages with images": lambda generator, number: (
        258 * generator.integers(1, 9, number) + generator.integers(16, 1800, number)
    ),
}


@pytest.mark.parametrize("mix", MIXED)
def test_rows_of_4096_are_98_percent_full_whatever_the_mix(mix: str) -> None:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    lengths = np.minimum(MIXED[mix](np.random.default_rng(seed), 20_000), 4096)
    packing = pack(lengths, 4096)
    assert sorted(packing.document.tolist()) == list(range(20_000))
    num_rows = len(packing.row_at) - 1
    # Documents of more than half a row need a row each, and may alone fill them by less than 98%.
    assert fill(packing, 4096) >= 0.98 or num_rows <= 1.01 * np.count_nonzero(lengths > 2048)
    assert fill(packing, 4096) >= 0.97


def best_fit_decreasing(lengths: np.ndarray, row_length: int) -> int:
    """Number of rows of the textbook's method, by a search over all rows."""
    free: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [room for room in free if room >= length]
        if fitting:
            free[free.index(min(fitting))] -= length
        else:
            free.append(row_length - length)
    return len(free)


@pytest.mark.parametrize("longest", [12, 25, 40])
def test_packing_is_no_worse_than_best_fit_decreasing(longest: int) -> None:
    print("seed 5")
    lengths = np.random.default_rng(5).integers(1, longest + 1, 400)
    assert len(pack(lengths, 40).row_at) - 1 <= best_fit_decreasing(lengths, 40)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_the_first_row_is_filled_as_well_as_any_choice_could(lengths: list[int]) -> None:
    packing = pack(np.array(lengths), 20)
    longest, *others = sorted(lengths, reverse=True)
    sums = {0}
    for length in others:
        sums |= {total + length for total in sums}
    best = longest + max(total for total in sums if total <= 20 - longest)
    assert sum(lengths[document] for document in packing.document[: packing.row_at[1]]) == best


def test_rows_are_full_where_documents_allow() -> None:
    print("seed 6")
    generator = np.random.default_rng(6)
    lengths = np.concatenate([generator.integers(25, 54, 3000), generator.integers(20, 256, 800)])
    assert fill(pack(lengths, 256), 256) >= 0.995


def test_a_document_longer_than_a_row_is_refused() -> None:
    with pytest.raises(AssertionError, match="longer than a row"):
        pack(np.array([3, 9]), 8)


def test_a_packing_survives_the_disk(tmp_path: Path) -> None:
    packing = pack(np.array([5, 3, 8, 1]), 8)
    write_packing(tmp_path / "packing.safetensors", packing)
    read = open_packing(tmp_path / "packing.safetensors")
    assert all(np.array_equal(a, b) for a, b in zip(packing, read, strict=True))
    write_arrays(tmp_path / "other.safetensors", {"row_at": packing.row_at})
    with pytest.raises(BadInput, match="packed rows"):
        open_packing(tmp_path / "other.safetensors")
