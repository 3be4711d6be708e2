"""A set of keys in little memory: 16-byte digests, side by side in one array.

A Python set of strings takes 150 bytes a key and more; this takes 20 to 40. Two different keys share a digest once in
10^20 corpora of a billion documents.
"""

from __future__ import annotations

import hashlib

DIGEST_BYTES = 16
FIRST_SLOTS = 1024
EMPTY = bytes(DIGEST_BYTES)


def digest(text: str) -> bytes:
    """16 bytes of any text, lone surrogates included."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()


class DigestSet:
    """Digests that were added. Open addressing: a digest lies in the first free slot from the one it names on."""

    def __init__(self) -> None:
        self._slots = bytearray(FIRST_SLOTS * DIGEST_BYTES)
        self._num_slots, self._size = FIRST_SLOTS, 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, digest: bytes) -> bool:
        at = self._find(digest)
        return self._slots[at : at + DIGEST_BYTES] == digest

    def add(self, digest: bytes) -> bool:
        """Add 16 evenly spread bytes that are not all zero; returns whether they are new."""
        assert len(digest) == DIGEST_BYTES and digest != EMPTY, digest
        at = self._find(digest)
        if self._slots[at : at + DIGEST_BYTES] == digest:
            return False
        self._slots[at : at + DIGEST_BYTES] = digest
        self._size += 1
        if 5 * self._size > 4 * self._num_slots:
            self._grow()
        return True

    def _find(self, digest: bytes) -> int:
        """Where the digest lies, or the free slot where it would."""
        slot = int.from_bytes(digest[:8], "little") & (self._num_slots - 1)
        while True:
            at = slot * DIGEST_BYTES
            found = self._slots[at : at + DIGEST_BYTES]
            if found in (digest, EMPTY):
                return at
            slot = (slot + 1) & (self._num_slots - 1)

    def _grow(self) -> None:
        old, self._num_slots = self._slots, 2 * self._num_slots
        self._slots = bytearray(self._num_slots * DIGEST_BYTES)
        for start in range(0, len(old), DIGEST_BYTES):
            found = bytes(old[start : start + DIGEST_BYTES])
            if found != EMPTY:
                at = self._find(found)
                self._slots[at : at + DIGEST_BYTES] = found
