"""Settings of the pictures and texts of a corpus: every field with its unit; params.yaml has all values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.images import ImageRules

# Pillow's Image.MAX_IMAGE_PIXELS, above which it warns of a decompression bomb, and up to twice of which it decodes.
PILLOW_WARNS_ABOVE = 89_478_485


def require(condition: bool, field: str, value: object, rule: str) -> None:
    """Raise a ValueError that names the field, the value and the rule, unless the condition holds."""
    if not condition:
        raise ValueError(f"{field}: {value!r} {rule}")


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(ImageRules):
    """What becomes of a corpus's image files, and what decoding one may take."""

    decoder_memory_mib: int
    """Private memory of one decoding process at most; a picture that needs more is rejected."""
    decoder_seconds: float
    """For one picture at most; a picture that needs longer is rejected."""

    def __post_init__(self) -> None:
        require(len(self.formats) > 0, "formats", self.formats, "must list at least one format")
        require(
            1 <= self.max_pixels <= PILLOW_WARNS_ABOVE,
            "max_pixels",
            self.max_pixels,
            f"must lie in 1..{PILLOW_WARNS_ABOVE}, above which Pillow takes a file for a decompression bomb",
        )
        require(self.min_side_px >= 1, "min_side_px", self.min_side_px, "must be at least 1")
        require(self.max_aspect_ratio >= 1, "max_aspect_ratio", self.max_aspect_ratio, "must be at least 1")
        require(self.decoder_memory_mib >= 256, "decoder_memory_mib", self.decoder_memory_mib, "must be at least 256")
        require(self.decoder_seconds > 0, "decoder_seconds", self.decoder_seconds, "must be positive")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """What becomes of a corpus's texts. Invalid UTF-8, an unpaired surrogate and NUL are refused whatever stands here."""

    max_caption_bytes: int
    """Of one caption in UTF-8. A text without a picture has no limit: it is cut into rows later."""
    long_captions: Literal["truncate", "refuse"]
    """Truncate after the last word that fits, or refuse the record."""

    def __post_init__(self) -> None:
        require(self.max_caption_bytes >= 16, "max_caption_bytes", self.max_caption_bytes, "must be at least 16")


@dataclass(frozen=True, kw_only=True)
class DuplicatesConfig:
    """What becomes of a document that was met before, in any corpus and any split; the first one is always kept."""

    exact: Literal["count", "drop"]
    """The same words and pictures in the same order."""
    near: Literal["off", "count", "drop"]
    """Similar text and look-alike pictures; "off" saves the work."""
    near_threshold: float
    """Jaccard similarity of two texts' shingles from which on they are near, between 0 and 1."""
    permutations: int
    """Of a MinHash signature, 4 bytes each; with more of them the similarity is estimated better."""
    shingle_chars: int
    """Characters of one shingle."""
    image_distance: int
    """Bits of the 64 of a picture's hash in which two look-alikes differ at most."""
    max_remembered: int
    """Documents, the newest, that a later one is compared with for nearness; bounds the memory."""

    def __post_init__(self) -> None:
        require(
            self.near != "drop" or self.exact == "drop", "exact", self.exact, 'must be "drop" too where near is: equal is near'
        )
        require(0 < self.near_threshold < 1, "near_threshold", self.near_threshold, "must lie between 0 and 1")
        require(16 <= self.permutations <= 1024, "permutations", self.permutations, "must lie in 16..1024")
        require(1 <= self.shingle_chars <= 64, "shingle_chars", self.shingle_chars, "must lie in 1..64")
        require(0 <= self.image_distance <= 3, "image_distance", self.image_distance, "must lie in 0..3 of the 64 bits")
        require(self.max_remembered >= 1, "max_remembered", self.max_remembered, "must be at least 1")
