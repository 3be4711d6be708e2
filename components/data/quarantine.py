"""The documents that a gate has quarantined: a JSONL file of keys and reasons, which every later stage leaves out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from components.runtime.ancestors import ANCESTORS, check_report
from core.errors import BadInput
from core.files import read_json, sha256, write_text


class Quarantined(NamedTuple):
    """A document that later stages leave out."""

    key: str
    """The document's name (source/key, with #n for a piece of a long text)."""
    reason: str
    """The rules it breaks."""


def write_quarantine(path: Path, quarantined: Iterable[Quarantined]) -> None:
    """One JSON object a line: key, reason; an empty file when nothing was quarantined."""
    write_text(path, "".join(json.dumps(entry._asdict(), ensure_ascii=False) + "\n" for entry in quarantined))


def validation_facts(which: str, quarantine: Path, ancestors: Mapping[str, str]) -> dict[str, Any]:
    """What a gate's report says of its origin. which: "documents" or "latents". ancestors: of what was judged."""
    return {"kind": f"{which} verdict", "quarantine_sha256": sha256(quarantine), ANCESTORS: dict(ancestors)}


def read_validation(which: str, report: Path, quarantine: Path) -> dict[str, Any]:
    """The facts that `validation_facts` put into a gate's report; BadInput unless it was written with `quarantine`."""
    said, stage = read_json(report), f"validate {which}"
    names = ("kind", "quarantine_sha256", ANCESTORS)
    if not isinstance(said, dict) or not set(names) <= set(said) or said["kind"] != f"{which} verdict":
        raise BadInput(f"{report} does not say what was judged; run {stage} again, or `dvc repro`")
    check_report(quarantine, said["quarantine_sha256"], of=report, stage=stage)
    return {name: said[name] for name in names}


def read_keys(path: Path) -> frozenset[str]:
    """The keys in a quarantine file; a missing or broken file is a BadInput that names it."""
    try:
        # Not splitlines: a key may hold a character that Unicode counts as the end of a line.
        return frozenset(json.loads(line)["key"] for line in path.read_text().split("\n") if line)
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; run the gate that writes it (`dvc repro`)") from None
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{path} is not a quarantine file; delete it and run the gate again (`dvc repro`)") from None
