"""Every draw is the one of its key, for ever: a changed number would change what is learnt from old data."""

from __future__ import annotations

import numpy as np

from core.random import generator, philox, rank_of, seed_of, seed_of_name, uniform, uniform_of, words_of


def test_draws_are_those_of_the_definition() -> None:
    """By hashlib, numpy and splitmix64's published constants; texts are hashed in UTF-8."""
    assert seed_of() == 0 and seed_of(1) == 5225608189600411232
    assert seed_of(12, 345, 67) == 1604898950226213267 and seed_of(-1, 2**64 + 5) == 1923329087015097400
    drawn = uniform(7, 12, np.array([0, 3, 8_000_000_001]))
    assert [value.hex() for value in drawn.tolist()] == [
        "0x1.9113d29e0f4a7p-1",
        "0x1.76c8d6dfd18fdp-1",
        "0x1.80ec499b3af90p-3",
    ]
    assert generator(17, 3, 0, 5).integers(2**63) == 1477006232907107767
    assert generator(17, 3).permutation(6).tolist() == [0, 2, 4, 1, 5, 3]
    assert [draw.integers(2**63) for draw in philox([0, 2**64 - 1])] == [106500010600983629, 2166953674393202173]
    assert uniform_of("split", "000012", 17) == 0x332161802E611068 / 2**64
    assert seed_of_name(17, "a red seven") == 60015087039643057
    assert rank_of(17, "topics#0001").hex().startswith("bbd115eddc8629da")
    assert words_of(["s/0", "café"]).tolist() == [1141346728292430197, 6302685136992524259]


def test_streams_of_philox_are_numpys_whatever_was_drawn_before() -> None:
    for seed, drawn in zip(seeds := [5, 2**63 + 5, 5 + 2**32, 2**64 - 1, 5], philox(seeds), strict=True):
        plain = np.random.Generator(np.random.Philox(key=seed))
        # An odd number of halves of a word: what is left of it must not reach the next stream.
        assert np.array_equal(drawn.standard_normal((3, 5), np.float32), plain.standard_normal((3, 5), np.float32))
        assert drawn.random(dtype=np.float32) == plain.random(dtype=np.float32)
        assert drawn.integers(2**63) == plain.integers(2**63)


def test_uniform_numbers_are_uniform_and_independent() -> None:
    index = np.arange(20_000)
    one, next_step, next_seed = uniform(1, 5, index), uniform(1, 6, index), uniform(2, 5, index)
    for numbers in (one, next_step, next_seed):
        assert numbers.min() >= 0
        assert numbers.max() < 1
        assert abs(numbers.mean() - 0.5) < 0.01
        assert abs((numbers < 0.1).mean() - 0.1) < 0.01
    assert all(abs(np.corrcoef(one, other)[0, 1]) < 0.03 for other in (next_step, next_seed))
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.03
    assert np.array_equal(one[77:80], uniform(1, 5, np.array([77, 78, 79])))


def test_words_of_names_are_even() -> None:
    numbers = words_of(f"s/{index}" for index in range(20_000)).astype(np.float64) / 2.0**64
    assert abs(numbers.mean() - 0.5) < 0.01
    assert np.abs(np.histogram(numbers, 10, (0, 1))[0] - 2000).max() < 200
