"""Text that cannot be stored is refused with its reason, and every other kept to the byte or cut where the rule says."""

from __future__ import annotations

import codecs
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components.data.content_config import TextConfig
from components.data.ingest.text_rules import (
    BIDI_NOTE,
    TOKEN_NOTE,
    TRUNCATED,
    CheckedText,
    TextError,
    check_caption,
    check_text,
    truncate,
)
from core.tokenizer import SPECIAL_TOKENS

TRUNCATE = TextConfig(max_caption_bytes=32, long_captions="truncate")
REFUSE = TextConfig(max_caption_bytes=32, long_captions="refuse")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "missing caption"),
        ("", "missing caption"),
        (" \n\t\u3000", "missing caption"),
        (b"", "missing caption"),
        (17, "caption is not text"),
        (["a"], "caption is not text"),
        (b"caf\xe9", "invalid UTF-8"),
        (b"\xc0\xaf", "invalid UTF-8"),  # an overlong slash
        (b"\xed\xa0\x80", "invalid UTF-8"),  # a surrogate in bytes
        ("half \ud83d of a pair", "invalid UTF-8"),
        (codecs.BOM_UTF8 + b"\n", "missing caption"),
        ("\ufeff", "missing caption"),
        (codecs.BOM_UTF16_LE, "missing caption"),
        ("end\0of the string", "caption holds a NUL"),
        (b"\0", "caption holds a NUL"),
    ],
)
def test_what_is_no_text_is_refused_in_fixed_words(value: object, reason: str) -> None:
    with pytest.raises(TextError) as refusal:
        check_text(value, "caption")
    assert str(refusal.value) == reason


@settings(deadline=None)
@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
@example(codecs.BOM_UTF8)
@example(codecs.BOM_UTF16_LE)
def test_bytes_become_the_text_they_spell_or_are_refused(data: bytes) -> None:
    try:
        checked = check_text(data, "text")
    except TextError:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return
        assert not text.lstrip("\ufeff").strip() or "\0" in text
        return
    assert checked.text.encode() == data or data[:2] in (b"\xff\xfe", b"\xfe\xff") or data[:3] == b"\xef\xbb\xbf"
    assert check_text(checked.text, "text") == checked


@pytest.mark.parametrize("text", ["a caf\u00e9 in two\nlines", "\U0001f600"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_an_editor_puts_around_a_caption_is_no_part_of_it(text: str, encoding: str) -> None:
    windows = f"{text}\n".replace("\n", "\r\n").encode(encoding)
    for value in (windows, windows.decode(encoding), f"\ufeff{text}\n"):
        assert check_caption(value, TRUNCATE) == CheckedText(text, ())
    # A text keeps its own white space, which may mean something.
    assert check_text(f"{text}\n".encode(encoding), "text") == CheckedText(f"{text}\n", ())


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("a red three", ()),
        ("\u05e9\u05dc\u05d5\u05dd", ()),
        ("access\u202e level", (BIDI_NOTE,)),
        ("\u2067user\u2069", (BIDI_NOTE,)),
        ("<|image|>", (TOKEN_NOTE,)),
        ("\u200fa <|endoftext|>", (BIDI_NOTE, TOKEN_NOTE)),
        ("a < b |> c <||>", ()),
        *((f"says {token} here", (TOKEN_NOTE,)) for token in SPECIAL_TOKENS.values()),
    ],
)
def test_what_is_odd_is_kept_and_told(text: str, notes: tuple[str, ...]) -> None:
    assert check_text(text, "text") == CheckedText(text, notes)


def test_every_bidi_control_of_unicode_is_told() -> None:
    """The property's list in Unicode's PropList.txt."""
    listed = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    found = [point for point in range(0x10000) if not 0xD800 <= point < 0xE000 and is_told(chr(point))]
    assert found == listed


def is_told(character: str) -> bool:
    try:
        return BIDI_NOTE in check_text(f"a{character}", "text").notes
    except TextError:
        return False


def test_long_captions_are_cut_after_a_word_or_refused() -> None:
    text = "a small red three and a large blue seven"
    assert check_caption(text, TRUNCATE) == CheckedText("a small red three and a large", (TRUNCATED,))
    assert check_caption(text[:32], TRUNCATE) == CheckedText(text[:32], ())
    with pytest.raises(TextError, match="caption is too long"):
        check_caption(text, REFUSE)
    assert check_caption(text[:32], REFUSE).text == text[:32]
    assert check_caption(" " * 100 + "word", TRUNCATE).text == "word"
    megabyte = "<|boi|>" * 150_000
    assert check_caption(megabyte, TRUNCATE) == CheckedText(("<|boi|>" * 5)[:32], (TOKEN_NOTE, TRUNCATED))


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(["e\u0301", " ", "\u200d"]))
    .map("".join)
    .map(str.strip)
    .filter(bool),
    st.integers(min_value=16, max_value=48),
)
def test_a_cut_text_fits_begins_the_text_and_parts_no_word(text: str, max_bytes: int) -> None:
    cut = truncate(text, max_bytes)
    assert len(cut.encode()) <= max_bytes
    assert text.startswith(cut)
    rest = text[len(cut) :]
    if not rest:
        return
    # Nothing more would have fitted: the next word is too long, or there was no end of a word to cut at.
    if rest[0].isspace():
        following = re.match(r"\s+\S*", rest)
        assert following and len((cut + following[0]).encode()) > max_bytes
    else:
        assert not re.search(r"\S\s", text.encode()[:max_bytes].decode(errors="ignore"))


@pytest.mark.parametrize("sign", ["e\u0301\u0323", "\U0001f469\u200d\U0001f680", "\u2764\ufe0f"])
def test_a_sign_of_several_characters_is_not_parted(sign: str) -> None:
    size = len(sign.encode())
    for max_bytes in range(16, 16 + 2 * size):
        cut = truncate("x" + sign * 20, max_bytes)
        assert cut == "x" + sign * ((max_bytes - 1) // size)
