"""Texts from outside: what cannot be encoded, or says two things, is refused before anything is done with it.

Messages show a value cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Far beyond what any model holds; tokenizing more would only take time.
MAX_TEXT_BYTES = 2**20
MAX_SHOWN_CHARACTERS = 80


def check_text(name: str, value: Any) -> None:
    """Raise ValueError with one sentence where the field `name` holds anything but text that can be encoded."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {type(value).__name__}")
    if at := half_surrogate(value):
        half = value[at - 1]
        raise ValueError(
            f"{name} holds {half!a} as character {at}, one half of a surrogate pair; write the whole character or leave it out"
        )
    if (size := len(value.encode())) > MAX_TEXT_BYTES:
        raise ValueError(f"{name} has {size} bytes, more than {MAX_TEXT_BYTES}")


def half_surrogate(text: str) -> int:
    """The first character, counted from 1, that is half of a surrogate pair, which no UTF-8 can hold; 0 where none is."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start + 1
    return 0


def each_key_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for json's object_pairs_hook, which would keep the last of two equal keys; raises DoubledKey."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise DoubledKey(f"key {shown(twice)} occurs twice")
    return found


def counted(number: int, noun: str, of_many: str = "") -> str:
    """A number of things: "1 file", "3 files"; of_many: the noun where they are not one, if that is more than an s."""
    return f"{number} {plural(number, noun, of_many)}"


def plural(number: int, noun: str, of_many: str = "") -> str:
    """The noun as it follows this number: "file" after 1, else `of_many`, or "files"."""
    return noun if number == 1 else of_many or f"{noun}s"


def shown(value: Any) -> str:
    """A value from outside as a message holds it: its Python form, a long one cut."""
    try:
        text = repr(value)
    except ValueError:
        # Python does not write integers of more than some thousand digits.
        return f"a very long {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."


class DoubledKey(Exception):
    """An object holds a key twice, and JSON does not say which value stands."""
