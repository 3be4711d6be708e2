"""The texts of a corpus that are used: valid UTF-8 without NUL, and captions up to a length.

What is odd and harmless is let through with a note, so that it can be counted: control characters of the reading
direction (a reader may see another order than the model), and the spelling of control tokens (the tokenizer encodes it
as the characters it is).
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import NamedTuple

from components.data.content_config import TextConfig
from components.data.ingest.readers.picture_values import is_encoded

BIDI_NOTE, TOKEN_NOTE, TRUNCATED = "text has bidi controls", "text spells a control token", "caption truncated"

# Unicode's property Bidi_Control.
BIDI_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Ours, and what other models call theirs.
CONTROL_TOKENS = re.compile(r"<\|[a-zA-Z0-9_]{1,64}\|>")
# What editors put before a text to tell its encoding; it is no part of the text.
BYTE_ORDER_MARK = "\ufeff"
UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Joins what stands before and after it into one sign.
JOINER = "\u200d"


class TextError(ValueError):
    """A text cannot be used; the message is the reason, the same words for the same fault."""


class CheckedText(NamedTuple):
    """A text that can be used."""

    text: str
    notes: tuple[str, ...]
    """What was done to the text or is odd about it, each one of the constants above."""


def check_text(value: object, what: str) -> CheckedText:
    """`value`, a string or UTF-8 bytes, as text that can be stored and encoded; TextError where it cannot be.

    A byte order mark is taken off, and that of UTF-16 heeded. what: the word for it in reasons ("key", "text", "caption").
    """
    if value is None:
        raise TextError(f"missing {what}")
    try:
        text = without_utf16(value)
        text = text.decode() if isinstance(text, bytes) else text
        if not isinstance(text, str):
            raise TextError(f"{what} is not text")
        # JSON and tar names can hold unpaired surrogates, which no file written later could.
        text.encode()
    except UnicodeError:
        raise TextError("invalid UTF-8") from None
    text = text.lstrip(BYTE_ORDER_MARK)
    if not text.strip():
        raise TextError(f"missing {what}")
    if is_encoded(text):
        raise TextError(f"{what} is an encoded picture")
    if "\0" in text:
        # It ends the text for half of the programs that may read it.
        raise TextError(f"{what} holds a NUL")
    notes = [note for note, pattern in ((BIDI_NOTE, BIDI_CONTROLS), (TOKEN_NOTE, CONTROL_TOKENS)) if pattern.search(text)]
    return CheckedText(text, tuple(notes))


def without_utf16(value: object) -> object:
    """Bytes that begin with the mark of UTF-16, and are UTF-16, as the text they spell; anything else as it is."""
    if not isinstance(value, bytes) or not value.startswith(UTF_16_MARKS):
        return value
    try:
        return value.decode("utf-16")
    except UnicodeDecodeError:
        return value


def check_caption(value: object, config: TextConfig) -> CheckedText:
    """`check_text` of a caption, and no longer than the limit: cut at the end of a word, or a TextError.

    White space around it is the file's, not the caption's, and lines end with one character on every system.
    """
    checked = check_text(value, "caption")
    checked = checked._replace(text=checked.text.strip().replace("\r\n", "\n"))
    if len(checked.text.encode()) <= config.max_caption_bytes:
        return checked
    if config.long_captions == "refuse":
        raise TextError("caption is too long")
    return CheckedText(truncate(checked.text, config.max_caption_bytes), (*checked.notes, TRUNCATED))


def truncate(text: str, max_bytes: int) -> str:
    """The longest beginning of at most `max_bytes` of UTF-8 that ends with a word; without spaces, with a character."""
    cut = text.encode()[:max_bytes].decode(errors="ignore")
    if len(cut) == len(text):
        return text
    if not text[len(cut)].isspace():
        words = re.match(r"(?s).*\S(?=\s)", cut)
        if words:
            return words[0]
        # An accent, or half of a joined sign, must not be parted from its letter.
        while len(cut) > 1 and (_is_mark(text[len(cut)]) or JOINER in (text[len(cut)], cut[-1])):
            cut = cut[:-1]
    return cut.rstrip()


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
