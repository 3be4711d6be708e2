"""What a file reader hands on: raw records of text and images as found, checked and converted later in one place."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from math import isfinite
from typing import Any, NamedTuple
from uuid import UUID

from core.errors import BadInput

KEY_FIELDS = ("key", "__key__", "id")
TEXT_FIELDS = ("text", "content")
CAPTION_FIELDS = ("caption", "captions", "text", "content", "TEXT", "txt")
MAX_FILE_BYTES = 256 * 2**20
# What a disk says of a name that no file on it can have, and of links in a circle.
NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.ELOOP)
# Why a record is rejected that `core.text.each_key_once` refuses.
DOUBLED_KEY = "a key stands twice in one JSON object"


class UnusableError(ValueError):
    """One record cannot be used; the message is the reason, in the same words for the same fault, without its position."""


class Fault(NamedTuple):
    """Stands where a piece should: why it is not there."""

    reason: str


class FileReference(NamedTuple):
    """A file that is read when its record's turn comes."""

    system: Any
    """Of fsspec."""
    path: str
    what: str
    """ "image" or "caption", for reasons."""
    otherwise: tuple[str, ...] = ()
    """The paths to try where there is no file at `path`."""

    def read(self) -> bytes:
        """All bytes; UnusableError where no file of a sane size is there, BadInput where the storage fails."""
        try:
            facts = self.system.info(self.path)
            if facts["type"] not in ("file", "directory"):
                # Reading a pipe would wait, and reading a device would go on, without end.
                raise UnusableError(f"{self.what} file is a pipe or a device")
            if (facts.get("size") or 0) > MAX_FILE_BYTES:
                raise UnusableError(f"{self.what} file is over {MAX_FILE_BYTES // 2**20} MiB")
            return self.system.cat_file(self.path)
        except UnusableError:
            raise
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            if self.otherwise:
                return self._replace(path=self.otherwise[0], otherwise=self.otherwise[1:]).read()
            raise UnusableError(f"{self.what} file is missing") from None
        except Exception as error:
            if isinstance(error, UnicodeError) or getattr(error, "errno", None) in NO_SUCH_NAME:
                raise UnusableError(f"{self.what} file is missing") from None
            raise self._unreadable(error) from None

    def exists(self) -> bool:
        """Whether a file is there; BadInput where the storage fails."""
        try:
            return any(self.system.isfile(path) for path in (self.path, *self.otherwise))
        except Exception as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> BadInput:
        # A store that does not answer says nothing about the record, and must not cost it; its errors are of any kind.
        return BadInput(f"the {self.what} {self.path} cannot be read ({error}); make it readable and run again")


Picture = bytes | FileReference | Fault | None
"""The bytes of an encoded image file, where to read them, why they are not there, or None where they are missing."""


class RawText(NamedTuple):
    """A text as it was found."""

    value: object
    """str, UTF-8 bytes, a FileReference, a Fault, None where it is missing, or whatever stood there."""


class RawImage(NamedTuple):
    """An image as it was found."""

    value: Picture


class Record(NamedTuple):
    """One record of a corpus, unchecked."""

    position: str
    """Where it stands, for messages."""
    key: str
    """Names the document."""
    pieces: tuple[RawText | RawImage, ...]
    is_pair: bool
    """Images and their captions, whose layout is still to be chosen; else the pieces are one document in their order."""
    notes: tuple[str, ...] = ()
    """What a reader passed over, to be counted."""


class Line(NamedTuple):
    """One JSON object of a file of lines."""

    values: dict[str, Any]
    position: str
    key: str
    """Its own, or that of the line."""


def printable(text: str) -> str:
    """Any string as one that can be written; names of files need not be UTF-8, and so may hold lone surrogates."""
    return text.encode(errors="backslashreplace").decode()


def text_record(position: str, key: str, text: object, notes: tuple[str, ...] = ()) -> Record:
    """A record that is one text."""
    return Record(position, key, (RawText(text),), is_pair=False, notes=notes)


def pair_record(
    position: str,
    key: str,
    captions: object,
    image: Picture | list[Picture],
    notes: tuple[str, ...] = (),
) -> Record:
    """A record that is one image, or a list of them, with one caption, or with a list of captions; [] is a missing one."""
    texts = (captions or [None]) if isinstance(captions, list) else [captions]
    images = image if isinstance(image, list) else [image]
    return Record(position, key, (*map(RawImage, images), *map(RawText, texts)), is_pair=True, notes=notes)


def first_text(values: Any, fields: Sequence[str]) -> object:
    """The value of the first of `fields` that `values` has; None where there is none."""
    if not isinstance(values, dict):
        return None
    return next((values[field] for field in fields if values.get(field) is not None), None)


def key_of(values: dict[str, Any], otherwise: str) -> str:
    """The record's own key where a field holds one, else `otherwise`: a string, a number, a UUID, or bytes."""
    return next((key for field in KEY_FIELDS if (key := _key(values.get(field))) is not None), otherwise)


def _key(value: object) -> str | None:
    """A value as a key; None where it can be none. Strings may hold lone surrogates, to be found where keys are checked."""
    if isinstance(value, bytes):
        return _key_of_bytes(value)
    if isinstance(value, (float, Decimal)):
        # A column of whole numbers with a gap somewhere is one of floats, and the gap is no number.
        return None if not isfinite(value) else str(int(value)) if value % 1 == 0 else str(value)
    return str(value) if isinstance(value, (str, int, UUID, date)) else None


def _key_of_bytes(value: bytes) -> str:
    """Text where bytes are text (some writers know no strings), a UUID where they are 16, else hexadecimal."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if text.isprintable():
        return text
    return str(UUID(bytes=value)) if len(value) == 16 else value.hex()
