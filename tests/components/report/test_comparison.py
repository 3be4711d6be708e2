"""The pictures of evaluations side by side: every one of them, and "the same noise" only where it was."""

from __future__ import annotations

from html import unescape
from typing import Any

import numpy as np
import pytest

from components.evaluation.differences import Evaluation
from components.evaluation.kept_items import KeptItems
from components.evaluation.kept_pictures import KeptPicture
from components.report.comparison import comparison_page
from core.png import encode_png

SCENES = (("seen", "a red 3"), ("seen", "a blue 5"), ("kept out", "a red 3"), ("kept out", "two"))
SAME, OTHER = "From the same prompts and the same noise, from left to right: a, b.", "The noise is not the same: "


def evaluation(name: str, asked: tuple[tuple[str, str], ...], *, seed: int = 17, seen: int = 40, **of: Any) -> Evaluation:
    pictures = [
        KeptPicture(group, prompt, "", None, encode_png(np.full((2, 2, 3), number, np.uint8)))
        for number, (group, prompt) in enumerate(asked)
    ]
    settings = {"seed": seed, "num_seen_scenes": seen}
    kept = KeptItems({}, {}, settings, {}, **{"autoencoder": "x", **of}, pictures=pictures)
    return Evaluation(name, "", {}, kept)


def compared(first: Evaluation, second: Evaluation) -> str:
    return unescape(comparison_page(first, [(second, [])]))


def test_pictures_without_a_prompt_are_all_shown() -> None:
    asked = (("pictures without a prompt", ""),) * 12
    page = compared(evaluation("a", asked), evaluation("b", asked[:11]))
    assert page.count('alt="a: without a prompt"') == page.count('alt="b: without a prompt"') == 11
    assert SAME in page
    shown = [part.partition('"')[0] for part in page.split('src="')[1:]]
    assert len(set(shown)) == 11 and shown[::2] == shown[1::2], "the first beside the first, and so on"


def test_a_picture_in_which_nothing_was_read_is_said_to_be_wrong() -> None:
    picture = KeptPicture("seen", "a red 3", "", False, encode_png(np.zeros((2, 2, 3), np.uint8)))
    kept = evaluation("a", SCENES).kept
    assert kept is not None
    wrong = Evaluation("a", "", {}, kept._replace(pictures=[picture]))
    right = Evaluation("b", "", {}, kept._replace(pictures=[picture._replace(right=True)]))
    page = compared(wrong, right)
    assert page.count("nothing") == page.count("as asked") == 1


def test_a_prompt_is_asked_of_each_group() -> None:
    page = compared(evaluation("a", SCENES), evaluation("b", SCENES, documents="others"))
    assert page.count('alt="a: a red 3"') == 2 and SAME in page and OTHER not in page


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (evaluation("b", SCENES, seed=18), "evaluate.seed is 17 in a, 18 in b."),
        (evaluation("b", SCENES, autoencoder="y"), "they have different autoencoders, so it is of different latents."),
        (evaluation("b", SCENES[::-1]), "it depends on a prompt's number, which differs for 4 of 4."),
        # The first group is kept in part, and the second one begins behind all of it.
        (evaluation("b", SCENES, seen=50), "it depends on a prompt's number, which differs for 2 of 4."),
    ],
)
def test_other_noise_is_said(second: Evaluation, why: str) -> None:
    page = compared(evaluation("a", SCENES), second)
    assert OTHER + why in page and SAME not in page
    assert "From the same prompts, from left to right: a, b." in page and page.count('alt="b:') == 4


def test_more_prompts_of_one_group_leave_the_noise_as_it_was() -> None:
    assert SAME in compared(evaluation("a", SCENES[:1]), evaluation("b", SCENES[:2], seen=50))
