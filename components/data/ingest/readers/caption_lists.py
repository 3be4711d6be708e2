"""Captions that stand in one cell as a list, spelled in JSON or as Python prints one; nothing of the spelling is trained on."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence

from components.data.ingest.readers.records import Fault

# Longer texts are no lists of captions.
LONGEST = 2**16
STARTS = ("[", "{", "(", "b'", 'b"')
# As numpy prints texts, without commas; or a printed list that is cut.
PRINTED = re.compile(r"\[\s*(['\"]).*\1\s*\]", re.DOTALL)
IS_OBJECT = "caption is a JSON object, and not the text in it"
NO_TEXTS = "caption is a list of other values than texts"
IS_PRINTED = "caption is a printed list that cannot be read back"


def captions_in(value: object) -> list[object]:
    """The captions that a value stands for: those of the list that it spells, or itself.

    A Fault where it spells something that is no text; None for an empty list.
    """
    try:
        text = value.decode("utf-8-sig") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return [value]
    if not isinstance(text, str) or len(text) > LONGEST or not (text := text.strip().lstrip("\ufeff")).startswith(STARTS):
        return [value]
    found = _spelled(text)
    if isinstance(found, dict):
        return [Fault(IS_OBJECT)]
    if isinstance(found, (list, tuple)):
        return _of_list(found, value)
    if isinstance(found, bytes):
        return [found]
    return [Fault(IS_PRINTED) if PRINTED.fullmatch(text) else value]


def spells_list(value: object) -> bool:
    """Whether the value is not one caption as it stands."""
    return captions_in(value) != [value]


def _of_list(found: Sequence[object], value: object) -> list[object]:
    if all(isinstance(entry, str) for entry in found):
        return list(found) or [None]
    # A year or a number in brackets is a caption's own.
    return [Fault(NO_TEXTS) if any(isinstance(entry, (str, dict, list)) for entry in found) else value]


def _spelled(text: str) -> object:
    """The value that the text spells in JSON or, to the letter, in Python; None where it is no such thing."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    # Python joins texts that no comma parts.
    return found if repr(found) == text else None
