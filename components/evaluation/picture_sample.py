"""A few pictures drawn from a stream of many, each as likely, whatever their order."""

from __future__ import annotations

import heapq

from core.random import rank_of


class PictureSample:
    """Keeps `num` of what is added: those of the lowest ranks, so that no more are ever held."""

    def __init__(self, num: int, seed: int) -> None:
        self._num, self._seed = num, seed
        self._kept: list[tuple[int, str, bytes]] = []

    def add(self, name: str, picture: bytes) -> None:
        """One more; names differ. The draw depends on (seed, name) alone."""
        # Negative, so that the heap's first is the highest rank, which goes next.
        entry = (-int.from_bytes(rank_of(self._seed, name)), name, picture)
        if len(self._kept) < self._num:
            heapq.heappush(self._kept, entry)
        else:
            heapq.heappushpop(self._kept, entry)

    def drawn(self) -> tuple[bytes, ...]:
        """By rank, so that the first ones are a draw as well."""
        return tuple(picture for *_, picture in sorted(self._kept, reverse=True))
