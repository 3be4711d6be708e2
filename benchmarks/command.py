"""What the benchmarks' commands share: names on the command line, and a result that is kept beside earlier ones."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def some_of(known: Collection[str], kind: str) -> Callable[[str], list[str]]:
    """A type for argparse: names separated by commas, all of them in `known`. kind: what a name names, in the refusal."""

    def names(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"no {kind} {', '.join(unknown)}; there are {', '.join(known)}")
        return found

    return names


def keep(new: Result, out: Path, merged: Callable[[Mapping[str, Any], Mapping[str, Any]], Result]) -> Result:
    """Write what `merged` makes of the result in `out`, if there is one, and the new one; returns what was written."""
    result = merged(json.loads(out.read_text()), new) if out.exists() else new
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    return result
