"""Which rows share a forward pass? All of them, unless padding would cost more than a pass of its own, or does not fit.

An engine runs contiguous slots, every row padded to the longest block among them. So a tick's passes are runs of slots, and
the cheapest way to cut is found exactly, one slot after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# What a pass costs beside its positions, counted in positions: its weights are read and its kernels started once more. At
# width 512 that is about 100 on a CPU; on an accelerator from 100 (a large model) to some thousands (a small one).
PASS_COST = 256


def shared_passes(sizes: Mapping[int, int], ends: Sequence[int], max_length: int) -> list[range]:
    """Runs of slots, each a pass, that together hold every slot of `sizes` once.

    sizes: positions that a slot feeds. ends: for every slot the first column that may be overwritten; also a slot that feeds
    nothing writes there when it lies in a run. max_length: columns of a slot; each slot's own positions must fit.
    """
    slots = sorted(sizes)
    if len(set(sizes.values())) == 1 and slots[-1] - slots[0] + 1 == len(slots):
        return [range(slots[0], slots[-1] + 1)]
    # The cheapest way to run the first slots: its cost, and where its last run begins.
    cheapest: list[tuple[int, int]] = [(0, 0)]
    for stop, last in enumerate(slots, start=1):
        options: list[tuple[int, int]] = []
        longest, furthest = 0, 0
        above = last + 1
        for start in range(stop - 1, -1, -1):
            first = slots[start]
            longest = max(longest, sizes[first])
            furthest = max(furthest, *ends[first:above])
            above = first
            if furthest + longest > max_length and start < stop - 1:
                break
            options.append((cheapest[start][0] + PASS_COST + (last + 1 - first) * longest, start))
        cheapest.append(min(options))
    runs: list[range] = []
    stop = len(slots)
    while stop:
        start = cheapest[stop][1]
        runs.append(range(slots[start], slots[stop - 1] + 1))
        stop = start
    return runs[::-1]
