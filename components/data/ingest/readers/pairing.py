"""Files paired to records by their names: a picture and its caption, whose names differ in their endings alone.

"shoot.001.jpg" and "shoot.001.txt" are a record called "shoot.001". WebDataset ends a key at the first dot instead, so that
"000.seg.png" belongs to "000": where such a file is no record with another, it is passed over if the record "000" is whole.
The only "000.caption.txt" of a picture "000.jpg" is its caption; but no mask is taken for a missing picture.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from components.data.ingest.readers.endings import ALL_PICTURES

CAPTION_ENDINGS = frozenset({"txt"})
# Of tars alone: the facts of a picture, which may hold its caption.
SIDECAR_ENDINGS = frozenset({"json"})
BESIDE = "pictures or captions beside those of their record"
SEVERAL = "several files of one kind under one key"
VARIANTS = "picture has several captions and none under its own name; keep one, named as the picture is (x.txt for x.jpg)"


class Part(NamedTuple):
    """One picture or caption."""

    outer: str
    """Its path up to the first dot of its name."""
    key: str
    """Its path up to the last dot of its name."""
    ending: str
    """In lower case."""
    value: Any
    """What the reader knows of the file."""

    @property
    def is_picture(self) -> bool:
        """By its ending."""
        return self.ending in ALL_PICTURES


class Group(NamedTuple):
    """The parts that one record has."""

    key: str
    parts: tuple[Part, ...]

    @property
    def is_whole(self) -> bool:
        """Whether it has a picture and a caption."""
        return len({part.is_picture for part in self.parts}) == 2


def part_of(path: str, value: Any, *, captions: frozenset[str] = CAPTION_ENDINGS) -> Part | None:
    """The part that a path names; None where its ending is neither a picture's nor one of `captions`.

    Accents are spelled in one way (NFC) in its keys.
    """
    # Macs write accents as signs of their own (NFD), and the caption may come from elsewhere.
    folder, slash, base = (path if path.isascii() else unicodedata.normalize("NFC", path)).rpartition("/")
    stem, _, ending = base.rpartition(".")
    ending = ending.lower()
    if not stem or (ending not in ALL_PICTURES and ending not in captions):
        return None
    return Part(f"{folder}{slash}{stem.partition('.')[0] or stem}", f"{folder}{slash}{stem}", ending, value)


def grouped(parts: Sequence[Part], *, outer_is_whole: bool) -> tuple[list[Group], list[Part]]:
    """The records among parts of one `outer`, by their first parts, whole or not; and parts that stand beside a whole record.

    outer_is_whole: a whole record of that name was met before.
    """
    if all(part.key == part.outer for part in parts):
        # As nearly all records are; the rest of this would find the same.
        return [Group(parts[0].key, tuple(parts))], []
    by_key: dict[str, list[Part]] = {}
    for part in parts:
        by_key.setdefault(part.key, []).append(part)
    groups = {key: Group(key, tuple(found)) for key, found in by_key.items()}
    outer = parts[0].outer
    strays = [part for key, group in groups.items() if key != outer and not group.is_whole for part in group.parts]
    inner = groups.get(outer)
    # A caption under a longer name belongs to the outer picture: if it is the only one, or if no number in its name says that
    # it is one of several.
    captions = [part for part in strays if part.ending in CAPTION_ENDINGS]
    is_variant = len(captions) == 1 or not any(character.isdigit() for part in captions for character in part.key[len(outer) :])
    if inner is not None and not inner.is_whole and inner.parts[0].is_picture and captions and is_variant:
        groups[outer] = inner = Group(outer, (*inner.parts, *captions))
        strays = [part for part in strays if part not in captions]
    # Without a whole record of the outer name nothing says that the others stand beside one: each is reported for itself.
    if not outer_is_whole and (inner is None or not inner.is_whole):
        return list(groups.values()), []
    return [group for key, group in groups.items() if key == outer or group.is_whole], strays


def pictures_of(group: Group, listed: frozenset[str]) -> tuple[list[Part], list[Part]]:
    """The pictures of a record, of which there should be one, and those that stand beside it.

    listed: endings of the formats that are read; where one of several pictures has such an ending, that one is meant.
    """
    pictures = [part for part in group.parts if part.is_picture]
    meant = [part for part in pictures if part.ending in listed]
    if len(pictures) > 1 and len(meant) == 1:
        return meant, [part for part in pictures if part is not meant[0]]
    return pictures, []


def why_several(group: Group) -> str:
    """The reason for which a record with several files of one kind is rejected."""
    captions = {part.key for part in captions_of(group)}
    return VARIANTS if len(captions) > 1 and group.key not in captions else SEVERAL


def captions_of(group: Group, endings: frozenset[str] = CAPTION_ENDINGS) -> Sequence[Part]:
    """The captions of a record with one of these endings."""
    return [part for part in group.parts if part.ending in endings]
