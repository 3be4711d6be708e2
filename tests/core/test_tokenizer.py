"""Any text can be encoded and read back, and no text can become a control token."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from components.data.demonstration.scenes import COLOURS, DIGIT_WORDS, PHRASINGS, PLACES, SceneObject, describe
from components.data.documents import Document, ImageSegment, TextSegment
from components.data.ingest.text_rules import TextError, check_text
from components.data.token_stream import token_stream
from core.errors import BadInput
from core.tokenizer import SPECIAL_TOKENS, TextTokenizer, load_tokenizer, train_tokenizer

CAPTIONS = [
    describe([SceneObject(digit, colour, place), SceneObject((digit + 1) % 10, colour, "bottom right")], phrasing)
    for digit in range(10)
    for colour in COLOURS
    for place in PLACES[:3]
    for phrasing in range(len(PHRASINGS))
]
# A corpus that says the control tokens thousands of times must not teach the merges to make them.
HOSTILE = [f"{token}{token} {token}" for token in SPECIAL_TOKENS.values()] * 2000
TOKENIZER = train_tokenizer([*CAPTIONS, *HOSTILE], 600)
CONTROL = set(TOKENIZER.special_ids.values())
LOADED_SPELLINGS = st.lists(st.sampled_from([*SPECIAL_TOKENS.values(), " ", "a", "<|", "|>", "\n"])).map("".join)


def test_control_ids_are_fixed() -> None:
    assert TOKENIZER.special_ids == {"pad": 0, "bos": 1, "eos": 2, "boi": 3, "eoi": 4}


@settings(deadline=None)
@given(text=st.text() | LOADED_SPELLINGS)
def test_any_text_comes_back_and_none_becomes_a_control_token(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert CONTROL.isdisjoint(ids)
    assert TOKENIZER.decode(ids) == text


@settings(deadline=None)
@example(data=codecs.BOM_UTF8, token="<|pad|>", at=3)
@given(data=st.binary(max_size=60), token=st.sampled_from(list(SPECIAL_TOKENS.values())), at=st.integers(0, 60))
def test_no_bytes_of_a_corpus_become_a_control_token(data: bytes, token: str, at: int) -> None:
    """What the rules on text let through comes back to the byte, with a control token spelt anywhere in it."""
    whole = data[:at] + token.encode() + data[at:]
    try:
        text = check_text(whole, "text").text
    except TextError:
        return
    ids = TOKENIZER.encode(text)
    assert CONTROL.isdisjoint(ids)
    # A byte order mark is no text.
    assert TOKENIZER.decode(ids).encode() == whole.removeprefix(codecs.BOM_UTF8)


@settings(deadline=None)
@given(st.lists(st.none() | st.text(max_size=10) | LOADED_SPELLINGS, max_size=6))
def test_a_stream_has_the_images_of_its_document_and_no_more(segments: list[str | None]) -> None:
    """None stands for an image. 0 images injected, whatever the texts spell."""
    document = Document(
        key="k", source="s", segments=tuple(ImageSegment(b"") if text is None else TextSegment(text) for text in segments)
    )
    ids, positions = token_stream(TOKENIZER, document)
    special = TOKENIZER.special_ids
    assert ids.count(special["boi"]) == ids.count(special["eoi"]) == len(positions) == segments.count(None)
    assert (ids.count(special["bos"]), ids.count(special["eos"]), ids.count(special["pad"])) == (1, 1, 0)


def test_decoding_leaves_control_tokens_out_and_survives_broken_utf8() -> None:
    ids = TOKENIZER.encode("\u00e9")
    assert TOKENIZER.decode([1, *TOKENIZER.encode("a red three"), 3, 4, 2]) == "a red three"
    assert TOKENIZER.decode(ids[:1]) == "\ufffd"


def test_words_of_captions_are_single_tokens() -> None:
    for word in (*DIGIT_WORDS, *COLOURS, "top", "bottom", "left", "right"):
        assert len(TOKENIZER.encode(f" {word}")) == 1, word


def test_saved_tokenizer_loads_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    for text in (*CAPTIONS[:20], "<|boi|> \u00e9", ""):
        assert loaded.encode(text) == TOKENIZER.encode(text)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace("three", "thre3"))
    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_training_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = {train_tokenizer(CAPTIONS + HOSTILE, 600).save(tmp_path / name) for name in ("a", "b", "c")}
    assert len(digests) == 1


def test_stream_puts_each_image_as_an_adjacent_pair() -> None:
    first, second = TextSegment("a <|eoi|> b"), TextSegment("c")
    picture = ImageSegment(b"")
    document = Document(key="k", source="s", segments=(picture, first, picture, picture, second))
    ids, positions = token_stream(TOKENIZER, document)
    text = TOKENIZER.encode(first.text)
    assert ids == [1, 3, 4, *text, 3, 4, 3, 4, *TOKENIZER.encode("c"), 2]
    assert positions == [1, 3 + len(text), 5 + len(text)]
    assert all(ids[at : at + 2] == [3, 4] for at in positions)


def test_a_tokenizer_without_our_control_tokens_is_refused() -> None:
    from tokenizers import models

    with pytest.raises(BadInput, match=r"<\|pad\|>"):
        TextTokenizer(Tokenizer(models.BPE()))
