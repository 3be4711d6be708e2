"""A sample of pictures does not depend on their order, and each is as likely."""

from __future__ import annotations

from collections import Counter

import numpy as np

from components.evaluation.picture_sample import PictureSample

NAMES = [f"c/{number}" for number in range(20)]


def drawn(names: list[str], num: int, seed: int) -> tuple[bytes, ...]:
    sample = PictureSample(num, seed)
    for name in names:
        sample.add(name, name.encode())
    return sample.drawn()


def test_the_order_of_pictures_changes_nothing_and_fewer_are_the_first_of_more() -> None:
    found = drawn(NAMES, 6, 1)
    assert len(set(found)) == 6
    assert drawn(NAMES[::-1], 6, 1) == found
    assert drawn(NAMES, 3, 1) == found[:3]
    assert drawn(NAMES, 6, 2) != found
    assert set(drawn(NAMES[:4], 6, 1)) == {name.encode() for name in NAMES[:4]}


def test_every_picture_is_as_likely() -> None:
    counts = Counter(name for seed in range(400) for name in drawn(NAMES, 5, seed))
    # 400 draws of 5 in 20: 100 each, and a deviation of 8.7.
    assert np.ptp([counts[name.encode()] for name in NAMES]) < 50
