"""Duplicates: exact ones by a digest of words and pictures, near ones by MinHash and a hash of each picture.

Exact: sha256 of every segment in order, and of a picture and its caption in either order: which comes first is drawn by a hash
of the key, so two copies of a pair may differ in it. A text counts by its words: NFKC, case folded, any white space as one
space. A picture counts by its bytes, which are the PNG that ingest made of it, so equal pixels have equal bytes.

Near: the texts' sets of character shingles have a Jaccard similarity of near_threshold or more, estimated by MinHash
(Broder 1997; signatures by datasketch), and the pictures, one by one, differ in at most image_distance of 64 bits of a
difference hash (is a pixel brighter than its left neighbour, on 9 x 8 pixels). A document with pictures is near only if
both are: captions repeat, and one picture may have many captions. Candidates are those that share a band of the signature
(locality-sensitive hashing; Leskovec et al., Mining of Massive Datasets, chapter 3), or a quarter of a picture's hash.

Memory: for exactness 20 to 40 bytes a document and as much a picture; for nearness 4 bytes a permutation and 100 for
pictures a document, of max_remembered at most, and 12 to 20 bytes for each of these and each band or quarter at once.
A verdict depends on the documents before, and on nothing else.
"""

from __future__ import annotations

import hashlib
import io
import unicodedata
from collections import Counter
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from components.data.content_config import DuplicatesConfig
from components.data.documents import Document, TextSegment
from components.data.ingest.digest_set import DIGEST_BYTES, DigestSet

Kind = Literal["exact", "near"]

SEED = 1
# Of those that share a band, the newest are compared: a phrase that half of a corpus repeats must not slow the other half.
MAX_CANDIDATES = 64
# A hash's quarters: two hashes that differ in three bits or fewer share one.
PICTURE_KEYS = 4
# Shingles hashed at a time; a signature's work takes 4 bytes for each and each permutation.
SHINGLES_AT_ONCE = 4096
# 2^64 by the golden ratio, odd: multiplying by it spreads what is alike and loses nothing (Knuth, volume 3, 6.4).
MIXER = 0x9E3779B97F4A7C15


class Seen(NamedTuple):
    """Whether a document was met before."""

    kind: Kind | None
    """How the document was met before, None where it was not."""
    drop: bool
    """Whether the configuration leaves it out."""


def normalised(text: str) -> str:
    """The text by its words alone: equal for texts that differ in case, width of letters or white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def content_digest(document: Document) -> bytes:
    """16 bytes that are equal for documents of equal words and pictures in equal order, a pair's in any."""
    digest = hashlib.sha256()
    is_pair = len(document.segments) == 2
    for segment in sorted(document.segments, key=lambda each: is_pair and not isinstance(each, TextSegment)):
        if isinstance(segment, TextSegment):
            kind, data = b"text", normalised(segment.text).encode()
        else:
            kind, data = b"image", segment.data
        digest.update(b"%b %d\n" % (kind, len(data)) + data)
    return digest.digest()[:DIGEST_BYTES]


def picture_hash(data: bytes) -> int:
    """64 bits of a PNG: is a pixel brighter than its left neighbour, on 9 x 8 pixels of grey?

    Scaling, compression and a change of brightness keep most bits; a mirrored or cropped picture has others.
    """
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")


class DuplicateFinder:
    """Remembers documents as they pass, the first of every kind. counts: how many were met before, by kind.

    counts["image"]: pictures, by their bytes, that an earlier document holds, in whatever company.
    """

    def __init__(self, config: DuplicatesConfig) -> None:
        self.counts: Counter[str] = Counter(exact=0, near=0, image=0)
        self._config = config
        self._documents, self._images = DigestSet(), DigestSet()
        self._near = _NearIndex(config) if config.near != "off" else None

    def see(self, document: Document) -> Seen:
        """Whether an equal or near document came before; remembers this one where none did."""
        self._count_images(document)
        if not self._documents.add(content_digest(document)):
            self.counts["exact"] += 1
            return Seen("exact", self._config.exact == "drop")
        if self._near and self._near.find_or_add(document):
            self.counts["near"] += 1
            return Seen("near", self._config.near == "drop")
        return Seen(None, False)

    def _count_images(self, document: Document) -> None:
        digests = {hashlib.sha256(image).digest()[:DIGEST_BYTES] for image in document.images}
        self.counts["image"] += sum(not self._images.add(digest) for digest in digests)


def shingle_hashes(text: str, shingle_chars: int) -> np.ndarray:
    """uint32, ascending: a hash of each distinct run of shingle_chars characters; of the whole text where it is shorter."""
    points = np.frombuffer(normalised(text).encode("utf-32-le"), np.uint32).astype(np.uint64)
    width = min(shingle_chars, len(points))
    hashes = np.zeros(len(points) - width + 1 if width else 0, np.uint64)
    for offset in range(width):
        hashes = hashes * np.uint64(MIXER) + points[offset : offset + len(hashes)] + np.uint64(1)
    # The low bits of a product depend on the low bits of its factors alone.
    return np.unique((hashes * np.uint64(MIXER) >> np.uint64(32)).astype(np.uint32))


class _NearIndex:
    """Signatures and picture hashes of the newest documents, found by what they share."""

    def __init__(self, config: DuplicatesConfig) -> None:
        # Here, because nothing else of this file needs it.
        from datasketch import MinHash, MinHashLSH

        self._config, self._size = config, config.max_remembered
        # The shingles are hashes already, and datasketch mixes their bits once more.
        self._minhash = MinHash(config.permutations, seed=SEED, hashfunc=int)
        chosen = MinHashLSH(config.near_threshold, config.permutations)
        self._num_bands, self._band_width = chosen.b, chosen.r
        self._num_added = 0
        # Pages of zeros take no memory before they are written to.
        self._signatures = np.zeros((self._size, config.permutations), np.uint32)
        self._pictures: list[tuple[int, ...]] = []
        self._by_text = _Buckets(self._num_bands, self._size)
        self._by_picture = _Buckets(PICTURE_KEYS, self._size)

    def find_or_add(self, document: Document) -> bool:
        """Whether a near document is remembered; this one is where there is none."""
        signature = self._signature(document)
        pictures = tuple(map(picture_hash, document.images))
        # Pictures tell documents apart that a caption does not; without one, and only then, the text must.
        buckets = self._by_picture if pictures else self._by_text
        keys = _quarters(pictures[0]) if pictures else self._bands(signature)
        candidates = buckets.find(keys, newest=self._num_added)
        if self._is_near(signature, pictures, candidates):
            return True
        buckets.add(keys, self._num_added)
        self._remember(signature, pictures)
        return False

    def _signature(self, document: Document) -> np.ndarray:
        hashes = shingle_hashes("\n".join(document.texts), self._config.shingle_chars)
        self._minhash.clear()
        for start in range(0, len(hashes), SHINGLES_AT_ONCE):
            self._minhash.update_batch(hashes[start : start + SHINGLES_AT_ONCE].tolist())
        return self._minhash.hashvalues

    def _bands(self, signature: np.ndarray) -> np.ndarray:
        """uint64, one a band: a hash of its part of the signature."""
        bands = signature[: self._num_bands * self._band_width].reshape(self._num_bands, self._band_width)
        keys = np.zeros(self._num_bands, np.uint64)
        for column in bands.T:
            keys = keys * np.uint64(MIXER) + column
        return keys

    def _is_near(self, signature: np.ndarray, pictures: tuple[int, ...], candidates: list[int]) -> bool:
        if not candidates:
            return False
        places = [number % self._size for number in candidates]
        similarity = (self._signatures[places] == signature).mean(axis=1)
        near = [place for place, value in zip(places, similarity, strict=True) if value >= self._config.near_threshold]
        return any(self._look_alike(pictures, self._pictures[place]) for place in near)

    def _look_alike(self, ours: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
        distances = ((one ^ other).bit_count() for one, other in zip(ours, theirs, strict=False))
        return len(ours) == len(theirs) and all(distance <= self._config.image_distance for distance in distances)

    def _remember(self, signature: np.ndarray, pictures: tuple[int, ...]) -> None:
        place = self._num_added % self._size
        self._signatures[place] = signature
        if place == len(self._pictures):
            self._pictures.append(pictures)
        else:
            self._pictures[place] = pictures
        self._num_added += 1


class _Buckets:
    """The last `size` documents by the keys that they share: chains from newer to older, of fixed memory.

    A document is its number, counted from 0; the arrays hold it plus 1, and 0 for none. Keys that fall into one slot share
    a chain, so that what is found is a candidate.
    """

    def __init__(self, num_keys: int, size: int) -> None:
        bits = (2 * size - 1).bit_length()
        self._size, self._shift = size, np.uint64(64 - bits)
        self._newest = np.zeros((num_keys, 2**bits), np.uint32)
        self._before = np.zeros((num_keys, size), np.uint32)

    def find(self, keys: np.ndarray, *, newest: int) -> list[int]:
        """Documents that share a key, ascending; newest: the number that the next one added will have."""
        found = set()
        for key, slot in enumerate(self._slots(keys)):
            after = int(self._newest[key, slot])
            for _ in range(MAX_CANDIDATES):
                # Its place in the ring belongs to another document by now.
                if after == 0 or after - 1 < newest - self._size:
                    break
                found.add(after - 1)
                after = int(self._before[key, (after - 1) % self._size])
        return sorted(found)

    def add(self, keys: np.ndarray, number: int) -> None:
        for key, slot in enumerate(self._slots(keys)):
            self._before[key, number % self._size] = self._newest[key, slot]
            self._newest[key, slot] = number + 1

    def _slots(self, keys: np.ndarray) -> list[int]:
        return (keys * np.uint64(MIXER) >> self._shift).tolist()


def _quarters(picture: int) -> np.ndarray:
    return np.array([picture >> shift & 0xFFFF for shift in (0, 16, 32, 48)], np.uint64)
