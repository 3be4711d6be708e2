"""Any changed byte of the folder of latents is found before a sample of it reaches a batch."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import numpy as np
import pytest

from components.data.loader import PackedRows
from core.errors import BadInput
from core.manifest import read_manifest

NUM_FLIPS = 200


def test_two_hundred_random_flips_are_found_two_hundred_times(encoded, tmp_path: Path) -> None:
    folder = tmp_path / "latents"
    shutil.copytree(encoded.latents, folder)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert {"manifest.json", "table.parquet", "train/packing.safetensors", "test/shard-00000.safetensors"} <= set(names)
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    found = 0
    for turn in range(NUM_FLIPS):
        # Every file in turn, so that small ones have their share.
        path = folder / names[turn % len(names)]
        original = path.read_bytes()
        content = bytearray(original)
        at, bits = int(generator.integers(len(content))), int(generator.integers(1, 256))
        content[at] ^= bits
        path.write_bytes(content)
        found += is_refused(folder, names[turn % len(names)])
        path.write_bytes(original)
    assert found == NUM_FLIPS
    assert PackedRows(folder, "train", None).num_rows > 0


def is_refused(folder: Path, name: str) -> bool:
    """By every reader of the file: the gate reads all of the folder, the loader one split."""
    with pytest.raises(BadInput):
        read_manifest(folder, kind="latents")
    if name != "table.parquet":  # which the loader does not read
        split = "train" if name == "manifest.json" else name.partition("/")[0]
        with pytest.raises(BadInput):
            PackedRows(folder, split, None)
    return True


def test_a_file_that_the_manifest_does_not_list_is_not_read(encoded, tmp_path: Path) -> None:
    folder = tmp_path / "latents"
    shutil.copytree(encoded.latents, folder)
    shutil.copyfile(folder / "train/shard-00000.safetensors", folder / "train/shard-99999.safetensors")
    assert PackedRows(folder, "train", None).num_images == PackedRows(encoded.latents, "train", None).num_images
