"""Rows are put into the cheapest passes, each slot in one of them, nothing written beyond a slot's end."""

from __future__ import annotations

import itertools
import random

from model.generation.batching import PASS_COST, cheapest_passes


def cost(passes: list[range], sizes: dict[int, int]) -> int:
    return sum(PASS_COST + len(run) * max(sizes.get(slot, 0) for slot in run) for run in passes)


def cheapest(sizes: dict[int, int], ends: list[int], max_length: int) -> int:
    """Every way to cut the slots into passes."""
    slots, costs = sorted(sizes), []
    for cuts in itertools.product([False, True], repeat=len(slots) - 1):
        groups = [[slots[0]]]
        for slot, is_cut in zip(slots[1:], cuts, strict=True):
            groups = [*groups, [slot]] if is_cut else [*groups[:-1], [*groups[-1], slot]]
        passes = [range(group[0], group[-1] + 1) for group in groups]
        longest = [max(sizes.get(slot, 0) for slot in run) for run in passes]
        if all(ends[slot] + size <= max_length for run, size in zip(passes, longest, strict=True) for slot in run):
            costs.append(cost(passes, sizes))
    return min(costs)


def test_the_passes_are_the_cheapest_that_fit(rng: random.Random) -> None:
    num_cut = 0
    for _ in range(300):
        num_slots, max_length = rng.randrange(1, 10), 1200
        fed = rng.sample(range(num_slots), rng.randrange(1, num_slots + 1))
        sizes = {slot: rng.choice([1, 1, rng.randrange(1, 300), 256, 1000]) for slot in fed}
        ends = [rng.randrange(0, max_length - sizes.get(slot, 0) + 1) for slot in range(num_slots)]
        passes = cheapest_passes(sizes, ends, max_length)
        num_cut += len(passes) > 1
        held = [slot for run in passes for slot in run]
        assert len(held) == len(set(held))
        assert set(sizes) <= set(held)
        for run in passes:
            longest = max(sizes.get(slot, 0) for slot in run)
            assert all(ends[slot] + longest <= max_length for slot in run)
        assert cost(passes, sizes) == cheapest(sizes, ends, max_length)
    assert 30 < num_cut < 300


def test_short_rows_ride_with_long_ones_and_many_long_ones_leave_them() -> None:
    assert cheapest_passes({0: 256, 1: 1, 2: 256}, [0] * 3, 1000) == [range(3)]
    assert cheapest_passes(dict.fromkeys(range(6), 1) | {6: 256}, [0] * 7, 1000) == [range(6), range(6, 7)]
