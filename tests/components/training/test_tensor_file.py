"""The bytes are safetensors' own, and the digest is that of the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from components.training.tensor_file import TYPE_NAMES, Entry, write_tensors
from core.files import sha256

NAMES = ("a", "Z", "é", "b.c", "model/x")
SHAPES = ((), (3,), (2, 5), (0, 4), (1, 1, 7))


def test_it_is_the_file_that_safetensors_writes(tmp_path: Path) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)

        def drawn(number: int, generator: torch.Generator = generator) -> int:
            return int(torch.randint(number, (), generator=generator))

        types = list(TYPE_NAMES)
        tensors = {
            f"{NAMES[drawn(len(NAMES))]}{number}": torch.randint(0, 2, SHAPES[drawn(5)], generator=generator).to(
                types[drawn(len(types))]
            )
            for number in range(25)
        }
        save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
        entries = {name: Entry(each.dtype, each.shape, lambda each=each: each) for name, each in tensors.items()}
        written = write_tensors(tmp_path / "ours", entries, {"format": "pt"})
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes(), seed
        assert written == ((tmp_path / "ours").stat().st_size, sha256(tmp_path / "ours"))


def test_a_tensor_larger_than_one_write_and_one_that_is_no_row_of_numbers(tmp_path: Path) -> None:
    large = torch.arange(3_000_000, dtype=torch.float32).view(1500, 2000).T
    save_file({"large": large.contiguous()}, tmp_path / "theirs", metadata={"format": "pt"})
    write_tensors(tmp_path / "ours", {"large": Entry(large.dtype, large.shape, lambda: large)}, {"format": "pt"})
    assert sha256(tmp_path / "ours") == sha256(tmp_path / "theirs")


def test_what_is_read_must_be_what_was_announced(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"w: torch\.float64"):
        write_tensors(tmp_path / "file", {"w": Entry(torch.float32, (2,), lambda: torch.zeros(2, dtype=torch.float64))}, {})
