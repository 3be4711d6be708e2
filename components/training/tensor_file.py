"""A safetensors file, written one tensor after the other and digested on the way.

safetensors' own writer takes all tensors of a file at once, and a digest of what it wrote means reading it again. Here one
tensor at a time is in memory beside those that the caller holds, and the bytes are the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from core.files import named

# safetensors' names of types, in the order in which its files hold them: the widest first, so that all lie aligned.
TYPE_NAMES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ALIGNMENT = 8
# Digested and written by turns while it is still in the processor's cache.
BYTES_A_WRITE = 1 << 22


class Entry(NamedTuple):
    """A tensor of the file."""

    dtype: torch.dtype
    shape: Sequence[int]
    read: Callable[[], Tensor]
    """Gives it when its turn has come, on the CPU."""

    @property
    def num_bytes(self) -> int:
        """Of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


class Written(NamedTuple):
    """What a manifest says of the file."""

    num_bytes: int
    sha256: str


def write_tensors(path: Path, entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> Written:
    """Write the file `path`, and wait until it is on disk."""
    ranks = {dtype: rank for rank, dtype in enumerate(TYPE_NAMES)}
    ordered = sorted(entries.items(), key=lambda item: (ranks[item[1].dtype], item[0].encode()))
    digest, num_bytes = hashlib.sha256(), 0
    # The system says of a full disk no file's name.
    with named(path), path.open("wb") as file:
        for part in _parts(dict(ordered), metadata):
            digest.update(part)
            num_bytes += file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return Written(num_bytes, digest.hexdigest())


def _parts(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    yield _header(entries, metadata)
    for name, entry in entries.items():
        tensor = entry.read()
        if tensor.dtype != entry.dtype or tensor.shape != torch.Size(entry.shape):
            raise ValueError(f"{name}: {tensor.dtype} {tuple(tensor.shape)} is not {entry.dtype} {tuple(entry.shape)}")
        view = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
        for start in range(0, len(view), BYTES_A_WRITE):
            yield view[start : start + BYTES_A_WRITE]


def _header(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> bytes:
    """Its length as 8 bytes, and JSON that says where each tensor lies behind it."""
    described: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name, entry in entries.items():
        end = at + entry.num_bytes
        described[name] = {"dtype": TYPE_NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
