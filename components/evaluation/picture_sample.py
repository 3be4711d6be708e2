"""A sample of pictures from a stream of many, whatever their order."""

from __future__ import annotations

from bisect import insort

from core.random import rank_of


class PictureSample:
    """Keeps `num` different ones of what is added, and at most `max_bytes` of them: those of the lowest ranks.

    More are never held.
    """

    def __init__(self, num: int, seed: int, max_bytes: float = float("inf")) -> None:
        self._num, self._seed, self._max_bytes = num, seed, max_bytes
        self._num_bytes = 0
        self._kept: list[tuple[int, bytes]] = []
        self._ranks: dict[bytes, int] = {}
        # Of those that had to go, the lowest rank: a smaller file of a higher one must not take its place.
        self._too_high = float("inf")

    def add(self, name: str, picture: bytes) -> None:
        """One more; names differ. The sample depends on (seed, name) alone; of equal pictures the lowest rank counts."""
        rank = int.from_bytes(rank_of(self._seed, name))
        if rank >= self._too_high or rank >= self._ranks.get(picture, self._too_high):
            return
        if picture in self._ranks:
            self._remove(self._ranks[picture], picture)
        insort(self._kept, (rank, picture))
        self._ranks[picture] = rank
        self._num_bytes += len(picture)
        while len(self._kept) > self._num or self._num_bytes > self._max_bytes:
            self._too_high = self._kept[-1][0]
            self._remove(*self._kept[-1])

    def pictures(self) -> tuple[bytes, ...]:
        """By rank, so that the first ones are a sample as well."""
        return tuple(picture for _, picture in self._kept)

    def _remove(self, rank: int, picture: bytes) -> None:
        self._kept.remove((rank, picture))
        del self._ranks[picture]
        self._num_bytes -= len(picture)
