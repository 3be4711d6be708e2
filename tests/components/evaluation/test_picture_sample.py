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
    return sample.pictures()


def test_the_order_of_pictures_changes_nothing_and_fewer_are_the_first_of_more() -> None:
    found = drawn(NAMES, 6, 1)
    assert len(set(found)) == 6
    assert drawn(NAMES[::-1], 6, 1) == found
    assert drawn(NAMES, 3, 1) == found[:3]
    assert drawn(NAMES, 6, 2) != found
    assert set(drawn(NAMES[:4], 6, 1)) == {name.encode() for name in NAMES[:4]}


def test_bytes_are_bounded_whatever_the_order_and_what_is_kept_is_the_beginning_of_the_draw() -> None:
    pictures = {name: name.encode() * (1 + 5 * (number % 3)) for number, name in enumerate(NAMES)}

    def bounded(names: list[str], max_bytes: float) -> tuple[bytes, ...]:
        sample = PictureSample(10, 1, max_bytes)
        for name in names:
            sample.add(name, pictures[name])
        return sample.pictures()

    everything = bounded(NAMES, float("inf"))
    for max_bytes in (40, 80, 120):
        found = bounded(NAMES, max_bytes)
        assert found == everything[: len(found)] and 0 < len(found) < 10
        assert sum(map(len, found)) <= max_bytes < sum(map(len, everything[: len(found) + 1]))
        assert bounded(NAMES[::-1], max_bytes) == found


def test_a_picture_of_several_documents_is_drawn_once() -> None:
    sample = PictureSample(6, 1)
    for number in range(60):
        sample.add(f"c/{number}", bytes([number % 10]))
    assert len(set(sample.pictures())) == 6 == len(sample.pictures())


def test_every_picture_is_as_likely() -> None:
    counts = Counter(name for seed in range(400) for name in drawn(NAMES, 5, seed))
    # 400 draws of 5 in 20: 100 each, and a deviation of 8.7.
    assert np.ptp([counts[name.encode()] for name in NAMES]) < 50
