"""Documents in which text and images take turns: OBELICS-like tables and MMC4-like lines, images from a folder.

Neither format has a home for image bytes in JSON: both name files, which are looked up in the corpus's images folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from components.data.ingest.readers.corpus_files import CorpusFile
from components.data.ingest.readers.jsonl import json_lines
from components.data.ingest.readers.parquet import first_values, open_table, require_columns, table_records
from components.data.ingest.readers.parquet_types import as_stored
from components.data.ingest.readers.picture_columns import Watch, picture, refuse_others
from components.data.ingest.readers.records import KEY_FIELDS, RawImage, RawText, Record, UnusableError, key_of
from components.data.ingest.rejected import Rejected

OBELICS_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")
MMC4_SUFFIXES = (".jsonl", ".jsonl.gz")

PARQUET_START = b"PAR1"
# A note on a page that is used all the same.
NOTHING_THERE = "a place has neither text nor image"

Piece = RawText | RawImage


def read_obelics(file: CorpusFile) -> Iterator[Record | Rejected]:
    """Records with the equally long lists `images` and `texts`, exactly one of the two set at each index.

    An image is a file name, and in Parquet may also be struct{bytes, path} or bytes.
    """
    for position, key, values, notes in _parquet(file) if _is_parquet(file) else _json(file):
        if isinstance(values, Rejected):
            yield values
            continue
        try:
            pieces, more = _taking_turns(values, file)
            yield Record(position, key, pieces, is_pair=False, notes=(*notes, *more))
        except UnusableError as error:
            yield Rejected(file.source, position, str(error))


def read_mmc4(file: CorpusFile) -> Iterator[Record | Rejected]:
    """Lines with text_list (sentences) and image_info (image_name and matched_text_index); an image goes before the
    sentence that it matches."""
    watch = Watch(file, of_captions=False)
    for line in json_lines(file, own=("text_list",)):
        if isinstance(line, Rejected):
            yield line
            continue
        notes = watch.notes(_others(line.values, ("text_list", "image_info")), has_own=bool(line.values.get("image_info")))
        try:
            yield Record(line.position, line.key, _matched(line.values, file), is_pair=False, notes=notes)
        except UnusableError as error:
            yield Rejected(file.source, line.position, str(error))


def _is_parquet(file: CorpusFile) -> bool:
    """By its first bytes; it may be called anything."""
    start = file.bytes.read(len(PARQUET_START))
    file.bytes.seek(0)
    return start == PARQUET_START


def _parquet(file: CorpusFile) -> Iterator[tuple[str, str, Any, tuple[str, ...]]]:
    with open_table(file) as table:
        schema = table.schema_arrow
        for column in ("images", "texts"):
            require_columns(file, schema, (column,))
        if file.takes_images:
            own, *others = first_values(file, table, ["images", *_others(dict.fromkeys(schema.names), ("images", "texts"))])
            refuse_others(file, others, has_own=any(not all(map(_is_empty, images)) for images in own.values))
        wanted = [name for name in schema.names if name in (*KEY_FIELDS, "images", "texts")]
        # A document may hold dozens of images.
        for number, values in enumerate(table_records(file, table, wanted, batch_size=8)):
            values["images"] = as_stored(values["images"], schema.field("images").type)
            yield f"{file.name} record {number}", key_of(values, f"{file.name}#{number}"), values, ()


def _json(file: CorpusFile) -> Iterator[tuple[str, str, Any, tuple[str, ...]]]:
    watch = Watch(file, of_captions=False)
    for line in json_lines(file, own=("texts",)):
        if isinstance(line, Rejected):
            yield line.position, "", line, ()
        else:
            images = line.values.get("images")
            has_own = isinstance(images, list) and not all(map(_is_empty, images))
            yield line.position, line.key, line.values, watch.notes(_others(line.values, ("images", "texts")), has_own=has_own)


def _others(values: dict[str, Any], own: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in (*KEY_FIELDS, *own)}


def _taking_turns(values: dict[str, Any], file: CorpusFile) -> tuple[tuple[Piece, ...], tuple[str, ...]]:
    """The pieces in order, and what to count: places where nothing is, as a download leaves them that failed."""
    images, texts = _list(values, "images"), _list(values, "texts")
    if len(images) != len(texts):
        raise UnusableError("images and texts are not equally long")
    pieces: list[Piece] = []
    notes: list[str] = []
    for image, text in zip(images, texts, strict=True):
        has_image, has_text = not _is_empty(image), not _is_empty(text)
        if has_image and has_text:
            raise UnusableError("images and texts do not take turns")
        if has_image and file.takes_images:
            pieces.append(RawImage(picture(image, file.images)))
        elif has_text and pieces and isinstance(pieces[-1], RawText):
            pieces[-1] = _joined([pieces[-1].value, text], "\n\n")
        elif has_text:
            pieces.append(RawText(text))
        elif not has_image:
            notes.append(NOTHING_THERE)
    return tuple(pieces), tuple(notes[:1])


def _matched(values: dict[str, Any], file: CorpusFile) -> tuple[Piece, ...]:
    texts, infos = _list(values, "text_list"), _list(values, "image_info")
    before: dict[int, list[Piece]] = {}
    for info in infos:
        at = info.get("matched_text_index") if isinstance(info, dict) else None
        if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < len(texts):
            raise UnusableError("matched_text_index names no text")
        if file.takes_images:
            name = info.get("image_name") or info.get("raw_url")
            before.setdefault(at, []).append(RawImage(file.images.image(name)))
    pieces: list[Piece] = []
    start = 0
    for at in [*sorted(before), len(texts)]:
        if texts[start:at]:
            pieces.append(_joined(texts[start:at], " "))
        pieces += before.get(at, [])
        start = at
    return tuple(pieces)


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
