"""The prose is cut at paragraph ends, kept once, and held out without a paragraph that trains."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.config import ProseConfig, SplitShares
from components.data.demonstration.prose import Passage, cut_passages, docstrings, normal_form, read_prose, reference_topics

SHARES = SplitShares(validation=0.08, test=0.12)
CONFIG = ProseConfig(max_train_bytes=200_000, max_held_out_bytes=20_000, passage_bytes=560)


@pytest.fixture(scope="module")
def splits() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for document in read_prose(CONFIG, SHARES, seed=3, source="prose"):
        assert document.split is not None
        found[document.split] += document.texts
    return found


def test_splits_are_full_and_within_their_bytes(splits: dict[str, list[str]]) -> None:
    sizes = {split: sum(len(text.encode()) for text in texts) for split, texts in splits.items()}
    assert 199_000 < sizes["train"] <= 200_000
    assert 19_000 < sizes["validation"] <= 20_000
    assert 19_000 < sizes["test"] <= 20_000
    assert max(len(text.encode()) for texts in splits.values() for text in texts) <= CONFIG.passage_bytes


def test_no_paragraph_is_in_two_splits_nor_twice_in_one(splits: dict[str, list[str]]) -> None:
    paragraphs = {
        split: [normal_form(part) for text in texts for part in text.split("\n\n")] for split, texts in splits.items()
    }
    for one, other in combinations(paragraphs, 2):
        assert set(paragraphs[one]).isdisjoint(paragraphs[other])
    assert all(len(set(found)) == len(found) > 50 for found in paragraphs.values())


def test_choice_follows_the_seed_alone(splits: dict[str, list[str]]) -> None:
    again = [document.texts[0] for document in read_prose(CONFIG, SHARES, seed=3, source="prose")]
    assert sorted(again) == sorted(text for texts in splits.values() for text in texts)
    other = [document.texts[0] for document in read_prose(CONFIG, SHARES, seed=4, source="prose")]
    assert set(other) != set(again)


def test_both_sources_give_much_text_and_no_tests_of_the_library() -> None:
    topics, library = list(reference_topics()), list(docstrings())
    assert sum(len(passage.text) for passage in topics) > 300_000
    assert sum(len(passage.text) for passage in library) > 1_000_000
    assert {"library/argparse", "library/collections/__init__"} <= {passage.key for passage in library}
    assert not any("/test/" in passage.key or "site-packages" in passage.key for passage in library)


def test_repeated_paragraphs_are_kept_where_they_come_first() -> None:
    first = Passage("a", "One two.\n\n  Indented\n  lines.\n\nThree.")
    second = Passage("b", "New here.\n\none   TWO.\n\nindented lines.")
    assert cut_passages([first, second], 1000) == [
        Passage("a#0000", "One two.\n\n  Indented\n  lines.\n\nThree."),
        Passage("b#0000", "New here."),
    ]


@settings(deadline=None)
@given(text=st.text(alphabet="ab \n\u00e9X.", max_size=400), size=st.integers(16, 120))
def test_passages_hold_every_word_and_fit(text: str, size: int) -> None:
    passages = cut_passages([Passage("k", text)], size)
    assert all(0 < len(passage.text.encode()) <= size for passage in passages)
    # Each paragraph is kept once, so the passages' letters are the text's, repeated paragraphs aside.
    kept = {normal_form(part) for passage in passages for part in passage.text.split("\n\n")}
    assert set("".join(kept)) - {" "} == set(normal_form(text)) - {" "}
    assert len({passage.key for passage in passages}) == len(passages)
