"""Generated pictures as a small file, so that those of two models stand side by side when the evaluations are long gone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from core.png import encode_png

if TYPE_CHECKING:
    from components.evaluation.results import GeneratedImage

SCHEMA = pa.schema(
    [("group", pa.string()), ("prompt", pa.string()), ("read", pa.string()), ("right", pa.bool_()), ("png", pa.binary())]
)


class KeptPicture(NamedTuple):
    """A `GeneratedImage` with its picture as a PNG file."""

    group: str
    prompt: str
    read: str
    right: bool | None
    png: bytes


def pictures_file(generated: Sequence[GeneratedImage]) -> bytes:
    """Parquet, a row a picture, in their order."""
    rows = [KeptPicture(each.group, each.prompt, each.read, each.right, encode_png(each.image)) for each in generated]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row._asdict() for row in rows], SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def pictures_from(file: bytes) -> list[KeptPicture]:
    """What `pictures_file` was made of."""
    return [KeptPicture(**row) for row in pq.read_table(io.BytesIO(file)).to_pylist()]
