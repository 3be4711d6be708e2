"""Which documents has a gate set aside, and why? A JSONL file of keys and reasons that every later stage leaves out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from components.runtime.failure import BadInput
from components.runtime.files import write_text


class Quarantined(NamedTuple):
    """key: the document's name (source/key, with #n for a piece of a long text). reason: the rules it breaks."""

    key: str
    reason: str


def write_quarantine(path: Path, quarantined: Iterable[Quarantined]) -> None:
    """One JSON object a line: key, reason; an empty file when nothing was set aside."""
    write_text(path, "".join(json.dumps(entry._asdict(), ensure_ascii=False) + "\n" for entry in quarantined))


def read_keys(path: Path) -> frozenset[str]:
    """The keys in a quarantine file; a missing or broken file is a BadInput that names it."""
    try:
        # Not splitlines: a key may hold a character that Unicode counts as the end of a line.
        return frozenset(json.loads(line)["key"] for line in path.read_text().split("\n") if line)
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; run the gate that writes it (`dvc repro`)") from None
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{path} is not a quarantine file; delete it and run the gate again (`dvc repro`)") from None
