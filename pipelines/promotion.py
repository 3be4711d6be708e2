"""A version judged by the rule and, where that holds, made champion: for `register` and for `promote` alike."""

from __future__ import annotations

from typing import NamedTuple

from components.evaluation.kept_items import items_or_why
from components.evaluation.promotion import Condition, Measured, Rule, bounded, compared
from components.runtime import champion
from components.runtime.registry import Version, kept_beside, version_of
from export.config import RegisterConfig

# The folder with the version's files.
ITEMS_FOLDER = "evaluation"


class Outcome(NamedTuple):
    """is_champion: whether the version has the alias then. before: the other version that had it, or "". reasons: sentences."""

    is_champion: bool
    before: str
    reasons: tuple[str, ...]


def rule_of(config: RegisterConfig) -> Rule:
    """The rule that the parameters set."""
    return Rule(config.bounds, config.default_bounds, config.compare, config.tolerance)


def decided(
    uri: str, config: RegisterConfig, version: Version, *, by_number: bool = False, compare: bool = True, dry_run: bool = False
) -> Outcome:
    """Judge a version, and make it champion where the rule says so.

    by_number: whether a person named this very version, as one that was rolled back needs. compare: otherwise the bounds alone
    decide. dry_run: change nothing.
    """
    present = version_of(uri, config.name, alias=champion.CHAMPION)
    conditions = list(bounded(version.metrics, rule_of(config)))
    if present is not None and present.version == version.version:
        said = "it is the champion already, and stays so until another is promoted or it is rolled back"
        return Outcome(True, "", (*(each.said for each in conditions), said))
    if compare:
        theirs = measured(uri, present) if present else None
        conditions.append(compared(measured(uri, version), theirs, rule_of(config)))
    if champion.was_rolled_back(version) and not by_number:
        again = f"`python -m pipelines.promote {version.version}`"
        conditions.append(
            Condition(False, f"it was champion and was rolled back, so it is promoted by its number alone: {again}")
        )
    fit, before = all(each.holds for each in conditions), present.version if present else ""
    if fit and not dry_run:
        champion.promote(uri, config.name, version.version, over=before)
    return Outcome(fit, before, tuple(each.said for each in conditions))


def measured(uri: str, version: Version) -> Measured:
    """What is kept of a version's evaluation."""
    with kept_beside(uri, version, ITEMS_FOLDER) as folder:
        return Measured(version.metrics, *(items_or_why(folder) if folder else (None, "")))
