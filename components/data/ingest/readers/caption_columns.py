"""Which columns of a table hold its texts: the names in common use first, then whatever else says caption."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from components.data.ingest.readers.corpus_files import CorpusFile
from components.data.ingest.readers.records import CAPTION_FIELDS
from core.errors import BadInput

# Spellings that others use, without case and underscores.
OTHER_NAME = re.compile("captions?|texts?|txt|content|alt|alttext|descriptions?|sentences?", re.IGNORECASE)
CAPTION_WORD = re.compile(r"(?<![a-z])(?:captions?|texts?|txt|alt|descriptions?|sentences?|prompts?)(?![a-z])")
SIZE_NAMES = frozenset({"width", "height"})


def caption_columns(file: CorpusFile, columns: Mapping[str, bool]) -> list[str]:
    """The columns to take a row's text from, the best first; columns: name -> whether it can hold text.

    BadInput where there are none, or several of which none is called as usual.
    """
    usual = [name for name in CAPTION_FIELDS if name in columns]
    if usual:
        return usual
    textual = [name for name, is_text in columns.items() if is_text]
    found = [name for name in textual if _is_other_name(name)] or [name for name in textual if says_text(name)]
    if len(found) == 1:
        return found
    has = f"{file.name} has the columns {', '.join(columns)}"
    if found:
        raise BadInput(f"{has}, and several may be its captions: {', '.join(found)}; rename the right one to caption")
    raise BadInput(f"{has} and none of {', '.join(CAPTION_FIELDS)}; rename the one with the text")


def are_captions(texts: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether the texts are said of pictures: by their column's name, or because the pictures' sizes stand beside them."""
    sizes = {name.lower().removeprefix("original_") for name in columns}
    return texts[0] not in ("text", "content") or sizes >= SIZE_NAMES


def says_text(name: str) -> bool:
    """Whether a word for captions or texts stands in the name."""
    return _is_other_name(name) or CAPTION_WORD.search(_spaced(name)) is not None


def _is_other_name(name: str) -> bool:
    return OTHER_NAME.fullmatch(re.sub(r"[_\W]", "", name)) is not None


def _spaced(name: str) -> str:
    """`captionEN` and `caption_en` alike as words apart."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\W\d]", " ", name).lower()
