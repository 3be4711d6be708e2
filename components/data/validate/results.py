"""What a gate says about a table: a result for each rule, the rows to quarantine, and the sentences that refuse or warn."""

from __future__ import annotations

from typing import Any, NamedTuple

from components.data.quarantine import Quarantined

# Of failing and of quarantined rows, in the report; the quarantine file has all of them.
NUM_ROWS_SHOWN = 20


class ExpectationResult(NamedTuple):
    """What came of one rule."""

    table: str
    level: str
    severity: str
    """As Great Expectations gives it back."""
    expectation: str
    arguments: dict[str, Any]
    reason: str
    success: bool
    observed: Any
    """The table's value, or how many rows it has."""
    num_failing: int
    """Rows that break it."""
    rows: list[dict[str, Any]]
    """The first failing ones, each {"key": ..., column: value}."""
    error: str
    """Why it could not be evaluated, else ""."""


class ValidationResult(NamedTuple):
    """What came of all rules over a stage's tables."""

    results: list[ExpectationResult]
    quarantined: list[Quarantined]
    """Rows left out of later stages, each once, in the table's order."""
    quarantined_share: float
    refusals: list[str]
    """One sentence each; empty means passed."""
    warnings: list[str]
    """One sentence each, of what does not stop."""

    @property
    def passed(self) -> bool:
        """Whether nothing is refused."""
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
            "findings": [result._asdict() for result in self.results],
        }
