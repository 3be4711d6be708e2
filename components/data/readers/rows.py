"""What does a file reader hand on? Raw rows: pieces of text and images as found, checked and converted later in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from components.runtime.failure import BadInput

KEY_FIELDS = ("key", "__key__", "id")
TEXT_FIELDS = ("text", "content")
CAPTION_FIELDS = ("caption", "captions", "text", "content", "TEXT")
MAX_FILE_BYTES = 256 * 2**20


class UnusableError(ValueError):
    """One row cannot be used; the message is the reason, in the same words for the same fault, without its position."""


class Fault(NamedTuple):
    """Stands where a piece should: why it is not there."""

    reason: str


class FileReference(NamedTuple):
    """A file that is read when its row's turn comes. system: of fsspec. what: "image" or "caption", for reasons."""

    system: Any
    path: str
    what: str

    def read(self) -> bytes:
        """All bytes; UnusableError where no file of a sane size is there, BadInput where the storage fails."""
        try:
            if self.system.size(self.path) > MAX_FILE_BYTES:
                raise UnusableError(f"{self.what} file is over {MAX_FILE_BYTES // 2**20} MiB")
            return self.system.cat_file(self.path)
        except UnusableError:
            raise
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise UnusableError(f"{self.what} file is missing") from None
        except Exception as error:
            # A store that does not answer says nothing about the row, and must not cost it; its errors are of any kind.
            raise BadInput(f"the {self.what} {self.path} cannot be read ({error}); make it readable and run again") from None


class RawText(NamedTuple):
    """value: str, UTF-8 bytes, a FileReference, a Fault, None where it is missing, or whatever stood there."""

    value: object


class RawImage(NamedTuple):
    """value: the bytes of an encoded image file, a FileReference, a Fault, or None where it is missing."""

    value: bytes | FileReference | Fault | None


class Row(NamedTuple):
    """One row of a corpus, unchecked.

    position: where it stands, for messages. key: names the document. is_pair: one image and its captions, whose layout
    is still to be drawn; else the pieces are one document in their order.
    """

    position: str
    key: str
    pieces: tuple[RawText | RawImage, ...]
    is_pair: bool


def text_row(position: str, key: str, text: object) -> Row:
    """A row that is one text."""
    return Row(position, key, (RawText(text),), is_pair=False)


def pair_row(position: str, key: str, captions: object, image: bytes | FileReference | Fault | None) -> Row:
    """A row that is one image with one caption, or with a list of captions."""
    several = captions if isinstance(captions, list) and captions else [captions]
    return Row(position, key, (RawImage(image), *map(RawText, several)), is_pair=True)


def first_text(values: Any, fields: Sequence[str]) -> object:
    """The value of the first of `fields` that `values` has; None where there is none."""
    if not isinstance(values, dict):
        return None
    return next((values[field] for field in fields if values.get(field) is not None), None)


def key_of(values: dict[str, Any], otherwise: str) -> str:
    """The row's own key where a field holds one, else `otherwise`. Bytes that are no UTF-8 stay to be found later."""
    found = next((values[field] for field in KEY_FIELDS if isinstance(values.get(field), (str, int, bytes))), otherwise)
    return found.decode(errors="surrogateescape") if isinstance(found, bytes) else str(found)
