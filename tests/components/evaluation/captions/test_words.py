"""Words are the same whatever a caption's case, punctuation and script."""

from __future__ import annotations

import pytest

from components.evaluation.captions.words import words_of_caption


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A red three, top left.", "a red three top left"),
        ("bottom right: blue seven; top left: red three", "bottom right blue seven top left red three"),
        ("  two\nlines\t", "two lines"),
        ("arrow_left-circle (filled)", "arrow left circle filled"),
        ("The man's T-shirt", "the man s t shirt"),
        ("ﬁve", "five"),
        ("naïve café", "naïve café"),
        ("हिन्दी में", "हिन्दी में"),
        ("赤い車 2台", "赤 い 車 2 台"),
        ("한국어 자막", "한국어 자막"),
        ("👍 good", "👍 good"),
        ("?! ...", "?! ..."),
        ("", ""),
    ],
)
def test_a_captions_words(text: str, words: str) -> None:
    assert words_of_caption(text) == tuple(words.split())
