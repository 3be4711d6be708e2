"""What happens to a row that cannot be used? It is set aside with its reason, and too many of them stop the stage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from components.runtime.failure import GateRefused
from components.runtime.files import write_text


class Rejected(NamedTuple):
    """source: the corpus's name. position: file and row, line or key. reason: the same words for the same fault."""

    source: str
    position: str
    reason: str


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """One JSON object a line: source, position, reason; an empty file when nothing was rejected."""
    write_text(path, "".join(json.dumps(row._asdict()) + "\n" for row in rejected))


def refuse_above(
    max_share: float, rejected: Iterable[Rejected], num_kept: int, *, what: str, quarantine: Path, key: str
) -> None:
    """Raise GateRefused when rejected rows are more than `max_share` of all; key: the parameter that sets the share."""
    reasons = Counter(row.reason for row in rejected)
    num_rejected = reasons.total()
    if num_rejected <= max_share * (num_rejected + num_kept):
        return
    most = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
    share = num_rejected / (num_rejected + num_kept)
    raise GateRefused(
        f"{num_rejected} of {num_rejected + num_kept} rows of {what} cannot be used"
        f" ({share:.2%}, at most {max_share:.2%} are allowed): {most};"
        f" {quarantine} lists them; mend the corpus or raise {key}"
    )
