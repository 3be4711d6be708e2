"""An order of several corpora of which every beginning holds them in proportion.

Where evaluation looks at the first so many documents, it looks at all corpora, each as often as its share of the split says. Of
one corpus alone the order is its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

Kept = TypeVar("Kept")


class Interleaving(Generic[Kept]):
    """Takes entries as they are read, and gives the first ones of that order.

    Of each corpus no more than the first `most` have to be kept, whatever its size.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._totals: dict[str, int] = {}
        # Of each entry the corpus, where its middle lies in it (in half units of size), and its size.
        self._entries: list[tuple[str, int, int, Kept]] = []

    def add(self, corpus: str, size: int, entry: Kept) -> None:
        """One more. size: what it counts for in `most` (images, bytes)."""
        before = self._totals.get(corpus, 0)
        self._totals[corpus] = before + size
        # All before it come before it in the end too, and are enough.
        if before < self._most:
            self._entries.append((corpus, 2 * before + size, size, entry))

    def first(self) -> list[Kept]:
        """As many as reach `most`, or all there are."""
        # Corpora that are equally far take turns in the order in which they were met: sorting is stable.
        ordered = sorted(self._entries, key=lambda entry: entry[1] / max(self._totals[entry[0]], 1))
        found: list[Kept] = []
        total = 0
        for _, _, size, entry in ordered:
            if total >= self._most:
                break
            found.append(entry)
            total += size
        return found


def interleaved(entries: Iterable[tuple[str, Kept]]) -> list[Kept]:
    """All of them, each with its corpus, in that order."""
    order = Interleaving[Kept](float("inf"))
    for corpus, entry in entries:
        order.add(corpus, 1, entry)
    return order.first()
