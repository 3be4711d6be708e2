"""The rule for pictures in records: the column that has them is read, or the corpus is refused; none is passed over in silence.

A reader shows the first values of the columns that it would not read, and is told which of them has the pictures. What
it still does not read it shows record by record.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from components.data.ingest.readers.corpus_files import CorpusFile, name_of
from components.data.ingest.readers.picture_signs import Sign, signs_in
from components.data.ingest.readers.picture_values import URL_SAFE, Kind, kind_of
from components.data.ingest.readers.records import Fault, FileReference, Picture
from components.data.ingest.readers.references import Folder
from core.errors import BadInput

# Weak signs count from this share of a column's values on; a web page may be named like a picture.
WEAK_SHARE = 0.25
NUM_FIRST_VALUES = 32
NUM_LOOKED_FOR = 8
# Pictures that stand in the column itself.
HERE = (Kind.BYTES, Kind.DATA)
NOT_READ, EMPTY = "names a picture in a field that is not read", "a column for pictures is empty"
NO_PICTURE = "text without a picture among records that have one"
DATA_URI_HEAD = re.compile(r"\s*data:image/[^,]{0,200},", re.IGNORECASE)


class Column(NamedTuple):
    """A column that is not read as text."""

    name: str
    values: Sequence[Any]
    """Its first ones, none of them null."""
    is_picture: bool = False
    """Its type says it is one."""
    are_pixels: bool = False
    is_empty: bool = False
    """It was looked through."""


class PictureColumn(NamedTuple):
    """The column that has the pictures, and the folder where it names files."""

    name: str
    folder: Folder

    def read(self, values: Mapping[str, Any]) -> list[Picture]:
        """The pictures of one record: bytes, files, or why there is none; never empty."""
        found = values.get(self.name)
        several = found if isinstance(found, (list, tuple)) and found else [found]
        return [picture(value or None, self.folder) for value in several]


def picture(value: Any, folder: Folder) -> Picture:
    """One picture of struct{bytes, path}, bytes, base64, a data URI, or a file's name in the folder."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        # Some writers know no strings; bytes that are neither a picture nor the name of one are refused by the decoder.
        is_text = kind_of(value) in (Kind.NAME, Kind.DATA)
        value = value.decode(errors="surrogateescape") if is_text else value
    if isinstance(value, str):
        return _of_text(value, folder)
    if value is None or isinstance(value, bytes):
        return value or None
    return Fault("image name is no file name")


def picture_column(file: CorpusFile, columns: Sequence[Column], *, of_captions: bool) -> PictureColumn | None:
    """The one column that has the pictures; None where no column bears a sign of any.

    BadInput where they are links, numbers or ids, lie inside other values, or stand in several columns.
    """
    found = {column.name: sign for column in columns if (sign := column_sign(column, of_captions=of_captions))}
    by_name = {column.name: column for column in columns}
    own = {name: sign for name, sign in found.items() if sign.path in (name, f"{name}.bytes", f"{name}.path")}
    here = [name for name, sign in own.items() if sign.kind in HERE]
    named = [name for name, sign in own.items() if sign.kind is Kind.NAME]
    chosen = here or [name for name in named if own[name].is_sure] or named
    if len(chosen) > 1:
        raise refusal(file, f"has pictures in the columns {', '.join(chosen)}", "keep one of them")
    elsewhere = [sign for name, sign in found.items() if name not in own and sign.kind in HERE]
    elsewhere += [sign for sign in found.values() if sign.kind is Kind.PIXELS]
    if elsewhere or (found and not chosen):
        raise refuse_sign(file, (elsewhere or list(found.values()))[0])
    if not chosen:
        return None
    if not here:
        _check_names(file, by_name[chosen[0]], own[chosen[0]])
    return PictureColumn(chosen[0], file.images)


def check_files_agree(file: CorpusFile, *, has_pictures: bool) -> None:
    """BadInput where an earlier file of the corpus has pictures and this one has none, or the other way round."""
    files = file.reading.pictured
    files.setdefault(has_pictures, file.name)
    if len(files) == 2:
        what, others = ("has pictures", "has none") if has_pictures else ("has no column of pictures", "has one")
        raise refusal(file, f"{what}, and {files[not has_pictures]} {others}", "list the two kinds as corpora of their own")


def refuse_others(file: CorpusFile, columns: Sequence[Column], *, has_own: bool) -> None:
    """BadInput where columns beside those that a format defines have pictures.

    has_own: the format's own have some, so that names and links elsewhere say where those came from.
    """
    for column in columns:
        sign = column_sign(column, of_captions=False)
        if sign and (sign.kind in HERE or not has_own):
            raise refuse_sign(file, sign)


def column_sign(column: Column, *, of_captions: bool) -> Sign | None:
    """What the column's values say together; None where they say nothing of pictures."""
    if column.are_pixels:
        return Sign(column.name, Kind.PIXELS, True, "numbers")
    per_value = [list(signs_in(column.name, value, of_captions=of_captions)) for value in column.values]
    signs = [sign for signs in per_value for sign in signs]
    sure = [sign for sign in signs if sign.is_sure]
    num_with = sum(bool(signs) for signs in per_value)
    if sure or (signs and num_with >= WEAK_SHARE * len(per_value)):
        return _chief(sure or signs)
    return Sign(column.name, Kind.BYTES, True, "nothing") if column.is_picture else None


class Watch:
    """Looks at what a reader leaves of each record. BadInput for a sure sign, and where weak ones become frequent."""

    def __init__(self, file: CorpusFile, *, of_captions: bool) -> None:
        self._file, self._of_captions = file, of_captions
        self._num_values, self._num_weak = Counter[str](), Counter[str]()

    def notes(self, unread: Mapping[str, Any], *, has_own: bool = False) -> tuple[str, ...]:
        """What to count about the record; has_own as in `refuse_others`."""
        found = False
        for name, value in unread.items() if self._file.takes_images else ():
            signs = list(signs_in(name, value, of_captions=self._of_captions))
            if has_own:
                signs = [sign for sign in signs if sign.kind in HERE]
            self._num_values[name] += value is not None
            self._num_weak[name] += bool(signs)
            often = self._num_weak[name] >= max(WEAK_SHARE * self._num_values[name], WEAK_SHARE * NUM_FIRST_VALUES)
            for sign in signs:
                if sign.is_sure or often:
                    raise refuse_sign(self._file, sign, is_late="." not in sign.path and not has_own)
            found = found or bool(signs)
        return (NOT_READ,) if found else ()


def refuse_sign(file: CorpusFile, sign: Sign, *, is_late: bool = False) -> BadInput:
    """The sentence for pictures that are there and not to be had; is_late: the first values of the column had none."""
    column = f"in the column {sign.path} ({sign.example})"
    if sign.kind is Kind.LINK:
        fetch = "download them with img2dataset and give the tars that it writes"
        return refusal(file, f"links its pictures {column}, and no link is followed", fetch)
    if sign.kind is Kind.ID:
        return refusal(file, f"names its pictures by an id {column}", "give the names of their files instead")
    if sign.kind is Kind.SVG:
        return refusal(file, f"has pictures as SVG markup {column}", "render them as PNG files (rsvg-convert does)")
    if sign.kind is Kind.PIXELS:
        return refusal(file, f"has pictures as numbers {column}", "store them as PNG or JPEG files' bytes")
    if is_late:
        return refusal(
            file, f"has pictures {column} behind records that have none", f"put one among the first {NUM_FIRST_VALUES}"
        )
    return refusal(
        file, f"has pictures {column} where they are not read", "bring them into a column of their own, called image"
    )


def refusal(file: CorpusFile, what: str, do: str) -> BadInput:
    """One sentence: the file, what it has, what to do."""
    return BadInput(f"{file.name} {what}; {do}, or set `images: none` on the corpus {file.source!r} to take its text alone")


def _check_names(file: CorpusFile, column: Column, sign: Sign) -> None:
    """BadInput where none of the first names is a file in the folder."""
    found = [entry for value in column.values for entry in (value if isinstance(value, (list, tuple)) else [value])]
    pictures = [picture(entry, file.images) for entry in found[:NUM_LOOKED_FOR]]
    if any(isinstance(one, bytes) or (isinstance(one, FileReference) and one.exists()) for one in pictures):
        return
    what = f"names its pictures in the column {sign.path} ({sign.example})"
    what += f", and none of the first lies in {name_of(file.images.path)}"
    raise refusal(file, what, "set the corpus's `images` to the folder where they lie")


def _of_text(value: str, folder: Folder) -> Picture:
    kind = kind_of(value)
    if kind is Kind.SVG:
        return Fault("image is SVG markup, which is not read")
    if kind is not Kind.DATA:
        return folder.image(value.strip())
    head = DATA_URI_HEAD.match(value)
    try:
        # Base64 for URLs has two signs of its own, and mostly no padding.
        text = "".join(value[head.end() if head else 0 :].split()).translate(URL_SAFE).rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return Fault("image is no valid base64")


def _chief(signs: Sequence[Sign]) -> Sign:
    """The sign that stands for all: pictures that are here before others, then the most frequent."""
    often = Counter((sign.path, sign.kind) for sign in signs)
    return max(signs, key=lambda sign: (sign.kind in HERE, often[sign.path, sign.kind]))
