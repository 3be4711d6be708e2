"""The captions of a record: which columns hold them, lists of them in one cell, and pictures under the names of texts.

Names in common use come first, then whatever else says caption. Captions may stand in one cell as a list, spelled in JSON or
as Python prints one; nothing of the spelling is trained on. A column called as texts are may hold pictures all the same:
Spark calls the bytes of any file `content`, and a message's content may be its parts.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from components.data.ingest.readers.corpus_files import CorpusFile
from components.data.ingest.readers.picture_columns import HERE, Column
from components.data.ingest.readers.picture_signs import signs_in
from components.data.ingest.readers.picture_values import Kind, kind_of
from components.data.ingest.readers.records import CAPTION_FIELDS, Fault
from core.errors import BadInput

# Spellings that others use, without case and underscores.
OTHER_NAME = re.compile("captions?|texts?|txt|content|alt|alttext|descriptions?|sentences?", re.IGNORECASE)
CAPTION_WORD = re.compile(r"(?<![a-z])(?:captions?|texts?|txt|alt|descriptions?|sentences?|prompts?)(?![a-z])")
SIZE_NAMES = frozenset({"width", "height"})
# Longer texts are no lists of captions.
LONGEST_LIST = 2**16
LIST_STARTS = ("[", "{", "(", "b'", 'b"')
# As numpy prints texts, without commas; or a printed list that is cut.
PRINTED_LIST = re.compile(r"\[\s*(['\"]).*\1\s*\]", re.DOTALL)
IS_OBJECT = "caption is a JSON object, and not the text in it"
NO_TEXTS = "caption is a list of other values than texts"
IS_PRINTED = "caption is a printed list that cannot be read back"


def caption_columns(file: CorpusFile, columns: Mapping[str, bool]) -> list[str]:
    """The columns to take a record's text from, the best first; columns: name -> whether it can hold text.

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


def captions_in(value: object) -> list[object]:
    """The captions that a value stands for: those of the list that it spells, or itself.

    A Fault where it spells something that is no text; None for an empty list.
    """
    try:
        text = value.decode("utf-8-sig") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return [value]
    if (
        not isinstance(text, str)
        or len(text) > LONGEST_LIST
        or not (text := text.strip().lstrip("\ufeff")).startswith(LIST_STARTS)
    ):
        return [value]
    found = _spelled(text)
    if isinstance(found, dict):
        return [Fault(IS_OBJECT)]
    if isinstance(found, (list, tuple)):
        return _of_list(found, value)
    if isinstance(found, bytes):
        return [found]
    return [Fault(IS_PRINTED) if PRINTED_LIST.fullmatch(text) else value]


def spells_list(value: object) -> bool:
    """Whether the value is not one caption as it stands."""
    return captions_in(value) != [value]


def _of_list(found: Sequence[object], value: object) -> list[object]:
    if all(isinstance(entry, str) for entry in found):
        return list(found) or [None]
    # A year or a number in brackets is a caption's own.
    return [Fault(NO_TEXTS) if any(isinstance(entry, (str, dict, list)) for entry in found) else value]


def _spelled(text: str) -> object:
    """The value that the text spells in JSON or, to the letter, in Python; None where it is no such thing."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    # Python joins texts that no comma parts.
    return found if repr(found) == text else None


def pictured_texts(texts: Sequence[str], columns: Sequence[Column]) -> set[str]:
    """Those of the columns called as texts are that hold pictures all the same: Spark calls the bytes of any file `content`.

    texts: the best first. In the first one names and links are taken for captions, of which many are file names.
    """
    found: set[str] = set()
    by_name = {column.name: column for column in columns}
    for name in texts:
        kinds = (*HERE, Kind.SVG) if len(found) == texts.index(name) else (*HERE, Kind.SVG, Kind.NAME, Kind.LINK)
        values = by_name[name].values if name in by_name else ()
        signs = [next(signs_in(name, value, of_captions=False), None) for value in values]
        num_pictures = sum(sign is not None and sign.kind in kinds and sign.path in (name, f"{name}.bytes") for sign in signs)
        if values and num_pictures * 2 >= len(values):
            found.add(name)
    return found


def spare_texts(values: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """The record's values of columns called as texts that are not its text, where they may be pictures.

    texts: the best first. A plain text among them is a caption, even where it is spelled as a name or a link.
    """
    filled = [name for name in texts if values.get(name) is not None]
    return {name: values[name] for name in filled[1:] if _may_be_picture(values[name])}


def _may_be_picture(value: Any) -> bool:
    if isinstance(value, str):
        return value.startswith(("[", "{")) or kind_of(value) in (Kind.DATA, Kind.SVG)
    return isinstance(value, (bytes, dict, list))
