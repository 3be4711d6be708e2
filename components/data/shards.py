"""Encoded documents on disk: safetensors files of many documents each, memory-mapped and read by slices.

Legend: N documents, T stored token ids and M images of all of them, V variants of an image (flipped, cropped), the first of
which is the image as it is, C latent channels, Y/X latent height/width.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save_file

from core.errors import BadInput
from core.files import atomic_write

# The manifest of a folder of shards and everything beside them.
KIND = "latents"
# Part of every digest under which unfinished work is kept: another format is other work.
FORMAT_VERSION = 1

# Only what we write; safetensors' names for it.
_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
}


class Shard(NamedTuple):
    """Documents in the order of the corpus."""

    ids: np.ndarray
    """int32 [T], the stored streams one after the other."""
    document_at: np.ndarray
    """int64 [N + 1], where each begins in ids."""
    latents: np.ndarray
    """float16 [M, C, Y, X], mean of the normalised posterior."""
    latent_std: np.ndarray
    """float16 [M, C, Y, X], its deviation."""
    image_document: np.ndarray
    """int32 [M], ascending: the document of each image."""
    image_at: np.ndarray
    """int64 [M], index in ids of each image's boi."""
    image_first: np.ndarray
    """bool [M], True where text follows the image and none precedes it."""
    keys: np.ndarray
    """uint8 [K], the UTF-8 of all names."""
    key_at: np.ndarray
    """int64 [N + 1], where each begins in keys."""
    variants: np.ndarray | None = None
    """float16 [M, V - 1, C, Y, X], means of the other variants; None where there are none."""
    variant_std: np.ndarray | None = None
    """Their deviations."""


OPTIONAL = frozenset({"variants", "variant_std"})


def shard_path(folder: Path, split: str, index: int) -> Path:
    """Where shard `index` of a split stands."""
    return folder / split / f"shard-{index:05d}.safetensors"


def shard_paths(folder: Path, split: str) -> list[Path]:
    """All shards of a split in order."""
    return sorted((folder / split).glob("shard-*.safetensors"))


def write_shard(path: Path, shard: Shard) -> None:
    """Write one shard whole or not at all; equal shards give equal bytes."""
    write_arrays(path, {name: array for name, array in shard._asdict().items() if array is not None})


def open_shard(path: Path) -> Shard:
    """The shard at `path` as read-only views of the mapped file; BadInput where it is not one that we wrote."""
    arrays = open_arrays(path)
    if missing := set(Shard._fields) - OPTIONAL - set(arrays):
        raise BadInput(f"{path} lacks {', '.join(sorted(missing))}; run `dvc repro encode` to write it again")
    return Shard(**{name: arrays[name] for name in Shard._fields if name in arrays})


def pack_keys(keys: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """keys and key_at of a Shard."""
    encoded = [key.encode() for key in keys]
    key_at = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), key_at


def shard_keys(shard: Shard) -> list[str]:
    """The name of each document."""
    joined = shard.keys.tobytes()
    return [joined[start:end].decode() for start, end in zip(shard.key_at[:-1], shard.key_at[1:], strict=True)]


def check_shard(path: Path, shard: Shard, *, boi: int) -> None:
    """Raise BadInput unless the parts of the shard fit each other and every image has its boi."""
    num_documents, num_images = len(shard.document_at) - 1, len(shard.image_at)
    of_images = (shard.latents, shard.latent_std, shard.image_document, shard.image_first, shard.variants, shard.variant_std)
    problems = {
        "document_at does not cut ids into documents": _cuts(shard.document_at, len(shard.ids)),
        "key_at does not cut keys into names": len(shard.key_at) == num_documents + 1 and _cuts(shard.key_at, len(shard.keys)),
        "the arrays of its images differ in length": all(len(part) == num_images for part in of_images if part is not None),
        "image_at is not where ids holds a begin-of-image": np.array_equal(np.flatnonzero(shard.ids == boi), shard.image_at),
    }
    if problem := next((text for text, holds in problems.items() if not holds), None):
        raise BadInput(f"{path}: {problem}; run `dvc repro encode` to write it again")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as safetensors, whole or not at all."""
    with atomic_write(path) as partial:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial)


def open_arrays(path: Path) -> dict[str, np.ndarray]:
    """Named arrays of a safetensors file as read-only views of the mapped file (safetensors' own reader copies)."""
    try:
        with path.open("rb") as file:
            content = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        header_bytes = int(content[:8].view("<u8")[0])
        header = json.loads(content[8 : 8 + header_bytes].tobytes())
        data = content[8 + header_bytes :]
        return {name: _view(data, entry) for name, entry in header.items() if name != "__metadata__"}
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; run `dvc repro encode` to make it") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise BadInput(f"{path} is not a whole safetensors file; run `dvc repro encode` to write it again") from None


def _view(data: np.ndarray, entry: dict[str, object]) -> np.ndarray:
    start, end = entry["data_offsets"]  # type: ignore[misc]
    return data[start:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])  # type: ignore[index,arg-type]


def _cuts(at: np.ndarray, total: int) -> bool:
    return len(at) > 0 and at[0] == 0 and at[-1] == total and bool((np.diff(at) > 0).all())
