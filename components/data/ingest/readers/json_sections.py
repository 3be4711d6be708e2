"""JSON files that do not fit in memory, entry by entry: the lists of an outermost object, or an outermost list."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

from components.data.ingest.readers.records import DOUBLED_KEY
from components.data.ingest.readers.unpacking import UNREADABLE, as_utf8
from core.errors import BadInput
from core.text import DoubledKey, each_key_once

CHUNK_BYTES = 2**20
MAX_ENTRY_CHARS = 64 * 2**20
NUMBER_CHARACTERS = "0123456789.eE+-"


def json_sections(file: IO[bytes], name: str) -> Iterator[tuple[str, Any]]:
    """(key, entry) for every entry of every list in the outermost object, in the file's order; other values are skipped.

    A byte that is no UTF-8 becomes a lone surrogate, to be found where texts are checked. BadInput where the file is not
    whole, not JSON, or no object; `name` stands in the message.
    """
    text = _Text(file, name)
    text.expect("{")
    if text.takes("}"):
        return text.expect_end()
    while True:
        key = text.key()
        text.expect(":")
        if text.takes("["):
            if not text.takes("]"):
                yield key, text.value()
                while text.takes(","):
                    yield key, text.value()
                text.expect("]")
        else:
            text.value()
        if not text.takes(","):
            break
    text.expect("}")
    text.expect_end()


def json_entries(file: IO[bytes], name: str) -> Iterator[Any]:
    """Every entry of the outermost list, as `json_sections` reads those of an object's lists."""
    text = _Text(file, name, "list")
    text.expect("[")
    if text.takes("]"):
        return text.expect_end()
    yield text.value()
    while text.takes(","):
        yield text.value()
    text.expect("]")
    text.expect_end()


class _Text:
    """A window over the file's characters: what stands before `_at` is done with."""

    def __init__(self, file: IO[bytes], name: str, what: str = "object") -> None:
        self._file, self._name, self._what = as_utf8(file), name, what
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._decoder = json.JSONDecoder(object_pairs_hook=each_key_once)
        self._window, self._at, self._ended = "", 0, False

    def value(self) -> Any:
        """The next JSON value."""
        self._skip_space()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._window, self._at)
                # A number that the window's edge cuts is taken for the shorter one before its ".", "e" or next digit.
                if self._ended or (end < len(self._window) and self._window[end] not in NUMBER_CHARACTERS):
                    self._at = end
                    return value
            except RecursionError:
                raise self._broken("is nested too deeply") from None
            except DoubledKey:
                raise self._broken(f"is ambiguous: {DOUBLED_KEY}") from None
            except json.JSONDecodeError as error:
                # Any error may come of the window's edge, until nothing follows or no entry is as long as this.
                if self._ended or len(self._window) - self._at > MAX_ENTRY_CHARS:
                    raise self._broken(f"is broken or cut short ({error.msg})") from None
            self._read_on()

    def key(self) -> str:
        """The next value, which must be a string."""
        found = self.value()
        if not isinstance(found, str):
            raise self._broken("is no JSON object: a key is no string")
        return found

    def takes(self, character: str) -> bool:
        """Whether the next character is this one, which is then passed."""
        found = self._skip_space() == character
        self._at += found
        return found

    def expect(self, character: str) -> None:
        """Pass this character; BadInput where another stands there."""
        if not self.takes(character):
            raise self._broken(f"is no JSON {self._what}, or cut short: {character!r} is missing")

    def expect_end(self) -> None:
        """BadInput where anything but white space follows."""
        if self._skip_space():
            raise self._broken("goes on after its end")

    def _skip_space(self) -> str:
        """The next character that is no white space; "" at the end of the file."""
        while True:
            while self._at < len(self._window) and self._window[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._window) or self._ended:
                return self._window[self._at : self._at + 1]
            self._read_on()

    def _read_on(self) -> None:
        """Forget what is done with, and read about as much again as is left, so that a long value is not read often."""
        try:
            chunk = self._file.read(max(CHUNK_BYTES, len(self._window) - self._at))
        except UNREADABLE as error:
            raise BadInput(f"{self._name} cannot be read to its end ({error}); fetch it again") from None
        self._ended = not chunk
        self._window = self._window[self._at :] + self._utf8.decode(chunk, final=self._ended)
        self._at = 0

    def _broken(self, what: str) -> BadInput:
        return BadInput(f"{self._name} {what}; fetch it again")
