"""What does a gate say about a table? A finding for each rule, the rows to set aside, and the sentences that refuse or warn."""

from __future__ import annotations

from typing import Any, NamedTuple

from components.data.quarantine import Quarantined

# Of failing and of quarantined rows, in the report; the quarantine file has all of them.
NUM_ROWS_SHOWN = 20


class Finding(NamedTuple):
    """What came of one rule. observed: the table's value, or how many rows it has. num_failing: rows that break it.

    rows: the first failing ones, each {"key": ..., column: value}. error: why it could not be evaluated, else "".
    severity: as Great Expectations gives it back.
    """

    table: str
    level: str
    severity: str
    expectation: str
    arguments: dict[str, Any]
    reason: str
    success: bool
    observed: Any
    num_failing: int
    rows: list[dict[str, Any]]
    error: str


class Verdict(NamedTuple):
    """refusals: one sentence each; empty means passed. warnings: one sentence each, of what does not stop.

    quarantined: rows set aside, each once, in the table's order.
    """

    findings: list[Finding]
    quarantined: list[Quarantined]
    quarantined_share: float
    refusals: list[str]
    warnings: list[str]

    @property
    def passed(self) -> bool:
        return not self.refusals

    def to_dict(self) -> dict[str, Any]:
        """The gate's report, JSON-able: no times, no ids of runs, so that equal tables give equal bytes."""
        return {
            "passed": self.passed,
            "refusals": self.refusals,
            "warnings": self.warnings,
            "num_quarantined": len(self.quarantined),
            "quarantined_share": round(self.quarantined_share, 6),
            "quarantined": [entry._asdict() for entry in self.quarantined[:NUM_ROWS_SHOWN]],
            "findings": [finding._asdict() for finding in self.findings],
        }
