"""Prompts ask for what they should: kept-out pairs where they belong, and captions that read back as they are."""

from __future__ import annotations

from collections import Counter

import pytest

from components.data.demonstration.scenes import PHRASINGS, kept_out_pairs, read_caption
from components.evaluation.scenes.prompts import kept_out_prompts, only_pairs, seen_prompts

KEPT_OUT = kept_out_pairs(6, 17)


def test_seen_prompts_hold_no_kept_out_pair() -> None:
    prompts = seen_prompts(200, KEPT_OUT, 3)
    assert len(prompts) == 200
    assert not any(only_pairs(prompt.objects, KEPT_OUT) for prompt in prompts)
    assert Counter(len(prompt.objects) for prompt in prompts).keys() == {1, 2, 3, 4}


def test_kept_out_prompts_hold_one_kept_out_pair_each_and_all_alike() -> None:
    prompts = kept_out_prompts(120, KEPT_OUT, 3)
    counted = [only_pairs(prompt.objects, KEPT_OUT) for prompt in prompts]
    assert all(len(objects) == 1 for objects in counted)
    pairs = Counter((thing.digit, thing.colour) for objects in counted for thing in objects)
    assert pairs == dict.fromkeys(KEPT_OUT, 20)
    assert kept_out_prompts(5, (), 3) == []


@pytest.mark.parametrize("make", [seen_prompts, kept_out_prompts])
def test_prompts_say_what_they_ask_for_in_every_phrasing(make: object) -> None:
    prompts = make(96, KEPT_OUT, 5)  # type: ignore[operator]
    assert all(read_caption(prompt.text) == prompt.objects for prompt in prompts)
    openings = Counter(prompt.text.startswith("there is") for prompt in prompts)
    assert openings[True] == 96 // len(PHRASINGS)
    assert prompts == make(96, KEPT_OUT, 5)  # type: ignore[operator]
    assert prompts != make(96, KEPT_OUT, 6)  # type: ignore[operator]
