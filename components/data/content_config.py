"""Settings of the pictures and texts of a corpus: every field with its unit; params.yaml has all values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from components.bounds import Positive, at_least, rule, within
from core.images import ImageFormat, ImageRules

# Pillow's Image.MAX_IMAGE_PIXELS, above which it warns of a decompression bomb, and up to twice of which it decodes.
PILLOW_WARNS_ABOVE = 89_478_485

Formats = Annotated[tuple[ImageFormat, ...], rule(lambda formats: len(formats) > 0, "must list at least one format")]
MaxPixels = Annotated[
    int,
    rule(
        lambda number: 1 <= number <= PILLOW_WARNS_ABOVE,
        f"must lie in 1..{PILLOW_WARNS_ABOVE}, above which Pillow takes a file for a decompression bomb",
    ),
]
Similarity = Annotated[float, rule(lambda value: 0 < value < 1, "must lie between 0 and 1")]
ImageDistance = Annotated[int, rule(lambda bits: 0 <= bits <= 3, "must lie in 0..3 of the 64 bits")]


def require(condition: bool, field: str, value: object, rule: str) -> None:
    """Raise a ValueError that names the field, the value and the rule, unless the condition holds."""
    if not condition:
        raise ValueError(f"{field}: {value!r} {rule}")


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(ImageRules):
    """What becomes of a corpus's image files, and what decoding one may take."""

    formats: Formats
    max_pixels: MaxPixels
    min_side_px: Positive[int]
    max_aspect_ratio: Annotated[float, at_least(1)]
    decoder_memory_mib: Annotated[int, at_least(256)]
    """Private memory of one decoding process at most; a picture that needs more is rejected."""
    decoder_seconds: Positive[float]
    """For one picture at most; a picture that needs longer is rejected."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """What becomes of a corpus's texts. Invalid UTF-8, an unpaired surrogate and NUL are refused whatever stands here."""

    max_caption_bytes: Annotated[int, at_least(16)]
    """Of one caption in UTF-8. A text without a picture has no limit: it is cut into rows later."""
    long_captions: Literal["truncate", "refuse"]
    """Truncate after the last word that fits, or refuse the record."""


@dataclass(frozen=True, kw_only=True)
class DuplicatesConfig:
    """What becomes of a document that was met before, in any corpus and any split; the first one is always kept."""

    exact: Literal["count", "drop"]
    """The same words and pictures in the same order."""
    near: Literal["off", "count", "drop"]
    """Similar text and look-alike pictures; "off" saves the work."""
    near_threshold: Similarity
    """Jaccard similarity of two texts' shingles from which on they are near, between 0 and 1."""
    permutations: Annotated[int, within(16, 1024)]
    """Of a MinHash signature, 4 bytes each; with more of them the similarity is estimated better."""
    shingle_chars: Annotated[int, within(1, 64)]
    """Characters of one shingle."""
    image_distance: ImageDistance
    """Bits of the 64 of a picture's hash in which two look-alikes differ at most."""
    max_remembered: Positive[int]
    """Documents, the newest, that a later one is compared with for nearness; bounds the memory."""

    def __post_init__(self) -> None:
        require(
            self.near != "drop" or self.exact == "drop", "exact", self.exact, 'must be "drop" too where near is: equal is near'
        )
