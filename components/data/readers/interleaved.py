"""How are documents read in which text and images take turns? OBELICS-like tables and MMC4-like lines, images from a folder.

Neither format has a home for image bytes in JSON: both name files, which are looked up in the corpus's images folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from components.data.intake.rejected import Rejected
from components.data.readers.corpus_files import CorpusFile
from components.data.readers.jsonl import json_lines
from components.data.readers.parquet import holds_bytes, open_table, require_columns, table_rows
from components.data.readers.references import Folder
from components.data.readers.rows import KEY_FIELDS, RawImage, RawText, Row, UnusableError, key_of

OBELICS_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")
MMC4_SUFFIXES = (".jsonl", ".jsonl.gz")

Piece = RawText | RawImage


def read_obelics(file: CorpusFile) -> Iterator[Row | Rejected]:
    """Rows with the equally long lists `images` and `texts`, exactly one of the two set at each index.

    An image is a file name, and in Parquet may also be struct{bytes, path} or bytes.
    """
    for position, key, values in _parquet(file) if file.name.lower().endswith(".parquet") else _json(file):
        if isinstance(values, Rejected):
            yield values
            continue
        try:
            yield Row(position, key, _taking_turns(values, file.images), is_pair=False)
        except UnusableError as error:
            yield Rejected(file.source, position, str(error))


def read_mmc4(file: CorpusFile) -> Iterator[Row | Rejected]:
    """Lines with text_list (sentences) and image_info (image_name and matched_text_index); an image goes before the
    sentence that it matches."""
    for line in json_lines(file):
        if isinstance(line, Rejected):
            yield line
            continue
        try:
            yield Row(line.position, line.key, _matched(line.values, file.images), is_pair=False)
        except UnusableError as error:
            yield Rejected(file.source, line.position, str(error))


def _parquet(file: CorpusFile) -> Iterator[tuple[str, str, Any]]:
    with open_table(file) as table:
        for column in ("images", "texts"):
            require_columns(file, table.schema_arrow, (column,))
        kind = table.schema_arrow.field("images").type
        are_names = pa.types.is_list(kind) and not holds_bytes(kind.value_type)
        wanted = [name for name in table.schema_arrow.names if name in (*KEY_FIELDS, "images", "texts")]
        # A document may hold dozens of images.
        for number, values in enumerate(table_rows(file, table, wanted, batch_size=8)):
            if are_names and values["images"]:
                values["images"] = list(map(_name, values["images"]))
            yield f"{file.name} row {number}", key_of(values, f"{file.name}#{number}"), values


def _json(file: CorpusFile) -> Iterator[tuple[str, str, Any]]:
    for line in json_lines(file):
        if isinstance(line, Rejected):
            yield line.position, "", line
        else:
            yield line.position, line.key, line.values


def _taking_turns(values: dict[str, Any], folder: Folder) -> tuple[Piece, ...]:
    images, texts = _list(values, "images"), _list(values, "texts")
    if len(images) != len(texts):
        raise UnusableError("images and texts are not equally long")
    pieces: list[Piece] = []
    for image, text in zip(images, texts, strict=True):
        has_image, has_text = not _is_empty(image), not _is_empty(text)
        if has_image == has_text:
            raise UnusableError("images and texts do not take turns")
        if has_image:
            pieces.append(_image(image, folder))
        elif pieces and isinstance(pieces[-1], RawText):
            pieces[-1] = _joined([pieces[-1].value, text], "\n\n")
        else:
            pieces.append(RawText(text))
    return tuple(pieces)


def _matched(values: dict[str, Any], folder: Folder) -> tuple[Piece, ...]:
    texts, infos = _list(values, "text_list"), _list(values, "image_info")
    before: dict[int, list[Piece]] = {}
    for info in infos:
        at = info.get("matched_text_index") if isinstance(info, dict) else None
        if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < len(texts):
            raise UnusableError("matched_text_index names no text")
        before.setdefault(at, []).append(RawImage(folder.image(info.get("image_name"))))
    pieces: list[Piece] = []
    start = 0
    for at in [*sorted(before), len(texts)]:
        if texts[start:at]:
            pieces.append(_joined(texts[start:at], " "))
        pieces += before.get(at, [])
        start = at
    return tuple(pieces)


def _image(value: Any, folder: Folder) -> RawImage:
    """The image of a struct{bytes, path}, of bytes, or of a file name."""
    if isinstance(value, dict):
        value = value.get("bytes") or _name(value.get("path"))
    return RawImage(value if isinstance(value, bytes) else folder.image(value))


def _name(value: Any) -> Any:
    """Arrow hands strings over as bytes here, because they need not be UTF-8."""
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value


def _is_empty(value: Any) -> bool:
    """None, and what stands for it where a column has no nulls: "" and a struct without anything in it."""
    return value is None or value in ("", b"") or (isinstance(value, dict) and not any(value.values()))


def _joined(texts: list[Any], between: str) -> RawText:
    """One text of several; left alone, and so refused later, where one of them is no text."""
    if all(isinstance(text, str) for text in texts):
        return RawText(between.join(texts))
    if all(isinstance(text, bytes) for text in texts):
        return RawText(between.encode().join(texts))
    return RawText(next(text for text in texts if not isinstance(text, (str, bytes))))


def _list(values: dict[str, Any], name: str) -> list[Any]:
    found = values.get(name)
    if not isinstance(found, list):
        raise UnusableError(f"{name} is no list")
    return found
