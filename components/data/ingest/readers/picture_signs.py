"""Signs that a column holds, names or links pictures: its name, and each of its values.

A name alone is a strong sign where it says picture and nothing beside it (`image`, `imgUrl`, `photo_path`, but not
`image_width`). So is a value that can be nothing else: the first bytes of a picture, a data URI. A file name or a link
that ends as pictures do is a weak sign: web pages are named like that too, now and then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from components.data.ingest.readers.picture_values import LONGEST_NAME, Kind, is_link, kind_of

LONGEST_JSON = 2**20

PICTURES = (
    "images?|imgs?|pictures?|pics?|photos?|photographs?|pixels?|thumbnails?|thumb|jpe?gs?|pngs?|webp|gif|bmp|avif|tiff?"
    "|heic|screenshots?"
)
PICTURE_WORD = re.compile(PICTURES)
# A name that ends in one of these is about a picture, or about something else of it.
ABOUT_WORD = re.compile(
    "captions?|texts?|txt|alt|descriptions?|desc|titles?|prompts?|sentences?|question|answer|ocr|language|lang"
    "|labels?|class|classes|categor(?:y|ies)|tags?|keywords?|group|split|version|model|metadata|meta|exif|status|error"
    "|width|height|sizes?|[wh]|ratio|aspect|area|resolution|channels|format|mode|types?|mime|counts?|num|number|position"
    "|index|indices|idx|hash(?:es)?|md5|sha|[pda]hash|embeddings?|features?|scores?|similarity|quality|nsfw"
    "|license|licence|author|credit|rights|attribution|creator|source|page|domain|site|location|date|time|timestamp"
)
IDS, URLS, FILES = "ids?|keys?|uuid", "urls?|uris?|links?|href|src|source", "files?|filenames?|filepaths?|paths?"
ID_WORD, URL_WORD, FILE_WORD = re.compile(IDS), re.compile(URLS), re.compile(FILES)
# Two words written as one: imageurl, imgpath.
RUN_ON = re.compile(rf"({PICTURES})({IDS}|{URLS}|{FILES}|name|data|bytes)")
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
OTHER_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,6}\s*$")


class Sign(NamedTuple):
    """One sign of a picture."""

    path: str
    """Of the column and the fields within."""
    kind: Kind
    is_sure: bool
    """One of them is enough."""
    example: str


def says_picture(name: str) -> bool:
    """Whether a column of this name holds, names or links pictures, whatever stands in it; an id counts."""
    words = _words(name)
    return any(map(PICTURE_WORD.fullmatch, words)) and not ABOUT_WORD.fullmatch(words[-1])


def signs_in(name: str, value: Any, *, of_captions: bool) -> Iterator[Sign]:
    """The signs that one value of the column bears, in its fields and entries too.

    of_captions: the records' texts are captions, so that a link or file beside one is its picture's.
    """
    if isinstance(value, dict):
        for field, inner in value.items():
            yield from signs_in(f"{name}.{field}", inner, of_captions=of_captions)
    elif isinstance(value, (list, tuple)):
        if _are_pixels(value) and says_picture(name):
            yield Sign(name, Kind.PIXELS, True, f"{len(value)} numbers")
        elif not _are_numbers(value):
            for inner in value:
                yield from signs_in(name, inner, of_captions=of_captions)
    elif (inner := _json(value)) is not None:
        yield from signs_in(name, inner, of_captions=of_captions)
    else:
        sign = _sign(name, value, of_captions)
        if sign:
            yield sign


def _json(value: Any) -> dict[str, Any] | list[Any] | None:
    """The object or list that a string spells; None for any other."""
    if not isinstance(value, str) or not value.startswith(("{", "[")) or len(value) > LONGEST_JSON:
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, (dict, list)) else None


def _sign(name: str, value: Any, of_captions: bool) -> Sign | None:
    is_id = ID_WORD.fullmatch(_last_word(name)) is not None
    if isinstance(value, int) and not isinstance(value, bool):
        # `image: 7` is one picture's number, and `images: 7` how many there are.
        is_number_of_one = is_id or (len(_words(name)) == 1 and not name.lower().endswith("s"))
        return Sign(name, Kind.ID, True, str(value)) if is_number_of_one and says_picture(name) else None
    if not isinstance(value, (str, bytes)) or not value.strip():
        return None
    kind, example = kind_of(value), _shown(value)
    if says_picture(name):
        return Sign(name, kind or _by_name(value, is_id), True, example)
    if kind in (Kind.BYTES, Kind.DATA, Kind.SVG):
        return Sign(name, kind, True, example)
    if of_captions and _refers(name, value):
        return Sign(name, Kind.LINK if is_link(value) else Kind.NAME, True, example)
    return Sign(name, kind, False, example) if kind else None


def _by_name(value: str | bytes, is_id: bool) -> Kind:
    """What a value must be that stands in a column of pictures, and does not say it itself."""
    if is_link(value):
        return Kind.LINK
    if is_id:
        return Kind.ID
    return Kind.BYTES if isinstance(value, bytes) else Kind.NAME


def _refers(name: str, value: str | bytes) -> bool:
    """Whether a column beside captions points at their pictures: a link, or a file of no other kind."""
    if URL_WORD.fullmatch(_last_word(name)):
        return is_link(value)
    text = value[:LONGEST_NAME].decode(errors="replace") if isinstance(value, bytes) else value
    is_file = FILE_WORD.fullmatch(_last_word(name)) or _words(name)[-2:] == ("file", "name")
    return bool(is_file) and len(text) < LONGEST_NAME and (kind_of(text) is not None or not OTHER_ENDING.search(text))


def _last_word(name: str) -> str:
    return (_words(name) or ("",))[-1]


@lru_cache(maxsize=4096)  # A corpus has few names of columns, and they come with every record.
def _words(name: str) -> tuple[str, ...]:
    """The lower-case words of a name; `imageurl` is two."""
    found: list[str] = []
    for word in WORD.findall(name):
        two = RUN_ON.fullmatch(word.lower())
        found += two.groups() if two else [word.lower()]
    return tuple(found)


def _are_numbers(values: list[Any] | tuple[Any, ...]) -> bool:
    return bool(values) and isinstance(values[0], (int, float))


def _are_pixels(values: list[Any] | tuple[Any, ...]) -> bool:
    """Lists of numbers, or so many numbers that they are no list of sizes."""
    if values and isinstance(values[0], (list, tuple)):
        return _are_numbers(values[0]) or _are_pixels(values[0])
    return _are_numbers(values) and len(values) >= 16


def _shown(value: str | bytes) -> str:
    text = value[:48].decode(errors="backslashreplace") if isinstance(value, bytes) else value[:48]
    shown = text if text.isprintable() else repr(value[:8])
    return f"{shown}..." if len(value) > 48 else shown
