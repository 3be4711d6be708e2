"""Pictures under the names of texts: Spark calls the bytes of any file `content`, and a message's content may be its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.data.ingest.readers.picture_columns import HERE, Column
from components.data.ingest.readers.picture_signs import Kind, kind_of, signs_in


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
    """The row's values of columns called as texts that are not its text, where they may be pictures.

    texts: the best first. A plain text among them is a caption, even where it is spelled as a name or a link.
    """
    filled = [name for name in texts if values.get(name) is not None]
    return {name: values[name] for name in filled[1:] if _may_be_picture(values[name])}


def _may_be_picture(value: Any) -> bool:
    if isinstance(value, str):
        return value.startswith(("[", "{")) or kind_of(value) in (Kind.DATA, Kind.SVG)
    return isinstance(value, (bytes, dict, list))
