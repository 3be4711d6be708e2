"""Records that cannot be used: each is rejected with its reason, and too many of them stop the stage."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from core.errors import GateRefused
from core.files import named

MOST_FREQUENT = 10
# What to do about a reason, where its words do not say it.
REMEDIES = {
    "invalid UTF-8": "texts in another encoding can be brought into UTF-8 with iconv (iconv -f LATIN1 -t UTF-8)",
    "broken JSON": "each line must be one JSON object",
    "missing image": "a picture must have the name of its caption; a text that is no caption (README.txt) must not lie there",
    "missing caption": "a caption must have the name of its picture, and words in it; captions listed in a metadata.jsonl are"
    " of format jsonl, which docs/own-corpus.md makes of a table in CSV too",
    "caption is a JSON object, and not the text in it": "bring the text into a column of its own, called caption",
    "text is an encoded picture": "bring pictures into a column of their own, called image",
    "duplicate key": "keys must be unique within a corpus; list files that number their records alike as corpora of their own",
}


class Rejected(NamedTuple):
    """One record, or one of the documents that it stands for, that cannot be used."""

    source: str
    """The corpus's name."""
    position: str
    """File and record, line or key."""
    reason: str
    """The same words for the same fault."""


class RejectedFile:
    """Writes rejected records as they come, one JSON object a line, so that none has to be held in memory.

    reasons: corpus name -> reason -> records. first: corpus name -> position of its first record. The file takes its name
    when the context ends, by an exception too, because the records explain it; it is empty when nothing was rejected.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.reasons, self.first = path, dict[str, Counter[str]](), dict[str, str]()
        # One name, so that what a killed stage leaves is written over; the stage's lock lets in one writer at a time.
        self._partial = path.with_name(f".{path.name}.partial")

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open("w", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with named(self.path), self._file as file:
            file.flush()
            os.fsync(file.fileno())
        self._partial.replace(self.path)

    def add(self, rejected: Rejected) -> None:
        """Write one down."""
        with named(self.path):
            self._file.write(json.dumps(rejected._asdict()) + "\n")
        self.reasons.setdefault(rejected.source, Counter())[rejected.reason] += 1
        self.first.setdefault(rejected.source, rejected.position)


def refuse_above(
    max_share: float, reasons: Mapping[str, int], num_records: int, *, what: str, file: Path, first: str, key: str
) -> None:
    """GateRefused where rejected records are more than `max_share` of num_records.

    first: where the first of them stands. key: the parameter that sets the share.
    """
    num_rejected = sum(reasons.values())
    if num_rejected <= max_share * num_records:
        return
    most = ", ".join(f"{reason} ({count})" for reason, count in Counter(reasons).most_common(MOST_FREQUENT))
    others = len(reasons) - MOST_FREQUENT
    more = f", and {others} more reasons" if others > 0 else ""
    remedy = next((f"; {REMEDIES[reason]}" for reason, _ in Counter(reasons).most_common(1) if reason in REMEDIES), "")
    raise GateRefused(
        f"{num_rejected} of {num_records} records of {what} cannot be used"
        f" ({num_rejected / num_records:.2%}, at most {max_share:.2%} are allowed): {most}{more};"
        f" {file} lists them, the first at {first}; mend the corpus or raise {key}{remedy}"
    )
