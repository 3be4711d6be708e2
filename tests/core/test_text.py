"""What cannot be encoded is found wherever it stands, and a long value is shown cut."""

from __future__ import annotations

import json

import pytest

from core.text import (
    MAX_SHOWN_CHARACTERS,
    MAX_TEXT_BYTES,
    DoubledKey,
    check_text,
    counted,
    each_key_once,
    half_surrogate,
    shown,
)


def test_the_first_half_of_a_surrogate_pair_is_found() -> None:
    for text, place in (("", 0), ("a\U0001f600\0", 0), ("\ud83d", 1), ("ab\udc00c\ud83d", 3)):
        assert half_surrogate(text) == place
        if place:
            with pytest.raises(ValueError, match=rf"^prompt holds '.ud[0-9a-f]{{3}}' as character {place}, one half of"):
                check_text("prompt", text)
        else:
            check_text("prompt", text)


def test_a_text_is_as_long_as_its_bytes() -> None:
    check_text("id", "é" * (MAX_TEXT_BYTES // 2))
    with pytest.raises(ValueError, match=f"^id has {MAX_TEXT_BYTES + 2} bytes, more than {MAX_TEXT_BYTES}$"):
        check_text("id", "é" * (MAX_TEXT_BYTES // 2 + 1))
    with pytest.raises(ValueError, match=r"^id must be text, not bytes$"):
        check_text("id", b"a")


def test_a_value_is_shown_up_to_a_length() -> None:
    text = "a" * (MAX_SHOWN_CHARACTERS - 2)
    assert shown(text) == repr(text)
    assert shown(text + "b") == repr(text + "b")[:MAX_SHOWN_CHARACTERS] + "..."
    assert shown(10**5000) == "a very long int"


def test_a_key_that_stands_twice_is_refused_at_any_depth() -> None:
    assert json.loads('{"a": {"b": [1]}, "c": {"b": 2}}', object_pairs_hook=each_key_once) == {"a": {"b": [1]}, "c": {"b": 2}}
    for text in ('{"a": 1, "b": 2, "a": 1}', '{"c": [{"a": 1, "a": 2}]}'):
        with pytest.raises(DoubledKey, match="key 'a' occurs twice"):
            json.loads(text, object_pairs_hook=each_key_once)


def test_one_of_a_thing_is_no_plural() -> None:
    assert [counted(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert [counted(number, "entry", "entries") for number in (1, 3)] == ["1 entry", "3 entries"]
