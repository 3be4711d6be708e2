"""A shard is read back as written, equal for equal input, and refused when its bytes are not its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.data.shards import (
    KIND,
    Shard,
    check_shard,
    open_shard,
    pack_keys,
    shard_keys,
    shard_path,
    shard_paths,
    write_arrays,
    write_shard,
)
from core.errors import BadInput
from core.manifest import read_manifest, write_manifest

BOI = 3


def make_shard(seed: int) -> Shard:
    print(f"seed {seed}")
    latents = np.random.default_rng(seed).standard_normal((2, 4, 2, 2)).astype(np.float16)
    keys, key_at = pack_keys(["scenes/a", "scenes/\u2028b", "prose/c#1"])
    return Shard(
        ids=np.array([1, 9, BOI, 4, 2, 1, 8, 7, 2, 1, BOI, 4, 2], np.int32),
        document_at=np.array([0, 5, 9, 13], np.int64),
        latents=latents,
        latent_std=np.abs(latents),
        image_document=np.array([0, 2], np.int32),
        image_at=np.array([2, 10], np.int64),
        image_first=np.array([False, True]),
        keys=keys,
        key_at=key_at,
    )


@pytest.mark.parametrize("num_views", [1, 3])
def test_a_shard_is_read_back_as_written(tmp_path: Path, num_views: int) -> None:
    shard, path = make_shard(1), shard_path(tmp_path, "train", 7)
    if num_views > 1:
        others = np.repeat(shard.latents[:, None], num_views - 1, axis=1)
        shard = shard._replace(variants=others, variant_std=np.abs(others))
    write_shard(path, shard)
    read = open_shard(path)
    for name, written, got in zip(Shard._fields, shard, read, strict=True):
        assert (written is None) == (got is None), name
        if written is not None and got is not None:
            assert written.dtype == got.dtype, name
            assert np.array_equal(written, got), name
    assert shard_keys(read) == ["scenes/a", "scenes/\u2028b", "prose/c#1"]
    assert shard_paths(tmp_path, "train") == [path]
    check_shard(path, read, boi=BOI)


def test_views_cannot_be_written_to(tmp_path: Path) -> None:
    write_shard(tmp_path / "s", make_shard(1))
    with pytest.raises(ValueError, match="read-only"):
        open_shard(tmp_path / "s").latents[0] = 0


def test_a_shard_without_images_or_documents_is_one_too(tmp_path: Path) -> None:
    full = make_shard(1)
    keys, key_at = pack_keys([])
    empty = Shard(*(part if part is None else part[:0] for part in full))._replace(  # type: ignore[arg-type]
        document_at=np.zeros(1, np.int64), keys=keys, key_at=key_at
    )
    write_shard(tmp_path / "s", empty)
    read = open_shard(tmp_path / "s")
    check_shard(tmp_path / "s", read, boi=BOI)
    assert read.latents.shape == (0, 4, 2, 2)
    assert shard_keys(read) == []


def test_equal_shards_give_equal_bytes(tmp_path: Path) -> None:
    write_shard(tmp_path / "a", make_shard(3))
    write_shard(tmp_path / "b", make_shard(3))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_any_flipped_byte_is_noticed_by_the_manifest(tmp_path: Path) -> None:
    path = shard_path(tmp_path, "train", 0)
    write_shard(path, make_shard(1))
    write_manifest(tmp_path, kind=KIND)
    original = path.read_bytes()
    for at in range(0, len(original), 61):
        flipped = bytearray(original)
        flipped[at] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(BadInput, match=r"shard-00000.safetensors does not have the bytes"):
            read_manifest(tmp_path, kind=KIND)
    path.write_bytes(original)
    assert read_manifest(tmp_path, kind=KIND)["kind"] == KIND


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.9])
def test_a_cut_off_file_is_refused(tmp_path: Path, share: float) -> None:
    write_shard(tmp_path / "s", make_shard(1))
    whole = (tmp_path / "s").read_bytes()
    (tmp_path / "s").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BadInput, match="whole safetensors file"):
        open_shard(tmp_path / "s")


def test_missing_files_and_arrays_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="none is missing"):
        open_shard(tmp_path / "none")
    write_arrays(tmp_path / "s", {"ids": np.zeros(1, np.int32)})
    with pytest.raises(BadInput, match="document_at"):
        open_shard(tmp_path / "s")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"document_at": np.array([0, 5, 9, 12])}, "document_at"),
        ({"document_at": np.array([0, 9, 5, 13])}, "document_at"),
        ({"key_at": np.array([0, 1])}, "key_at"),
        ({"image_first": np.zeros(1, bool)}, "differ in length"),
        ({"image_at": np.array([2, 9])}, "begin-of-image"),
        ({"variants": np.zeros((1, 2, 4, 2, 2), np.float16)}, "differ in length"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_named(change: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_shard(Path("here"), make_shard(1)._replace(**change), boi=BOI)
