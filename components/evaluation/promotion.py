"""The rule by which a version becomes champion: its bounds hold, and it is shown to be no worse than the present one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from components.evaluation.comparison import Gain, compares, gain, why_apart
from components.evaluation.intervals import LEVEL
from components.evaluation.kept_items import KeptItems
from components.evaluation.metrics import metric_of

OTHERWISE = "; --without-comparison of `python -m pipelines.promote` lets the bounds alone decide"


class Measured(NamedTuple):
    """What is known of a version."""

    metrics: Mapping[str, float]
    """By the keys of METRICS."""
    kept: KeptItems | None
    """None for a version from before they were kept."""


class Rule(NamedTuple):
    """As `RegisterConfig` documents each."""

    bounds: Mapping[str, float]
    default_bounds: Mapping[str, float]
    compare: Sequence[str]
    tolerance: float

    @property
    def read(self) -> set[str]:
        """The metrics that it looks at."""
        return {*self.bounds, *self.default_bounds, *self.compare}


class Finding(NamedTuple):
    """holds: whether it speaks for the version. said: a sentence without a full stop."""

    holds: bool
    said: str


def bounded(metrics: Mapping[str, float], rule: Rule) -> Iterator[Finding]:
    """One finding a bound. Where default bounds are all there is and none of them applies, one more, which does not hold."""
    for key, bound in sorted({**rule.default_bounds, **rule.bounds}.items()):
        value, most = metrics.get(key), _lower_is_better(key)
        kind = "greatest" if most else "least"
        if value is None and key not in rule.bounds:
            yield Finding(True, f"{key} was not measured on these corpora, so its {kind} value {bound:.4g} is left out")
        elif value is None:
            yield Finding(False, f"{key} was not measured, and its {kind} value is {bound:.4g}")
        else:
            # A NaN and an infinity hold nowhere.
            holds = math.isfinite(value) and (value <= bound if most else value >= bound)
            verb = ("keeps to" if most else "reaches") if holds else ("exceeds" if most else "misses")
            yield Finding(holds, f"{key} {value:.4g} {verb} its {kind} value {bound:.4g}")
    if rule.default_bounds and not rule.bounds and not rule.default_bounds.keys() & metrics.keys():
        yield Finding(False, "none of register.default_bounds was measured, so nothing says that the model is good")


def compared(mine: Measured, champion: Measured | None, rule: Rule) -> Finding:
    """By the first figure of `rule.compare` that both have and that tells them apart, unless another one is shown to be worse.

    A figure near its ceiling says little: a model that finds every caption may draw far worse, and one whose items all came out
    alike (both find every caption) does not tell the two apart.
    """
    if champion is None:
        return Finding(True, "there is no champion yet")
    if mine.kept is None or champion.kept is None:
        whose = "the champion" if mine.kept else "this version"
        adds = "`python -m pipelines.register` where its bundle is adds them"
        return Finding(False, f"{whose} has no items of its evaluation to be compared by; {adds}{OTHERWISE}")
    if why := why_apart(mine.kept, champion.kept):
        return Finding(False, f"the champion was measured {why}, so the two are not compared{OTHERWISE}")
    keys = [key for key in rule.compare if compares(key, mine.kept, champion.kept)]
    if not keys:
        return Finding(False, f"none of {', '.join(rule.compare)} compares item by item with the champion's{OTHERWISE}")
    telling: list[Finding] = []
    for key in keys:
        ours, theirs = mine.kept.items[key], champion.kept.items[key]
        if (found := gain(key, ours, theirs)) is None:
            return Finding(False, f"{key} was measured on other items, or on one alone, than the champion's{OTHERWISE}")
        judged = _judged(key, ours.value, theirs.value, found, rule.tolerance)
        if found.high < -rule.tolerance * abs(theirs.value):
            return judged
        telling += [judged] * bool(found.low or found.high)
    return telling[0] if telling else Finding(True, f"{', '.join(keys)} came out the same as the champion's on every item")


def _judged(key: str, mine: float, theirs: float, found: Gain, tolerance: float) -> Finding:
    # A NaN is no evidence.
    holds = found.low >= -tolerance * abs(theirs)
    by = f"{abs(found.value):.3g} {'better' if found.value > 0 else 'worse'}" if found.value else "equal"
    over = f"{LEVEL:.0%} of resamples {found.low:+.3g} to {found.high:+.3g} better, {found.num_items} items"
    measured = f"{key} {mine:.4g} is {by} beside the champion's {theirs:.4g} ({over})"
    if holds and found.low > 0:
        return Finding(True, f"{measured}: better")
    if holds:
        return Finding(True, f"{measured}: not worse" + (f" by more than {tolerance:.1%} of it" if tolerance else ""))
    if found.high < 0:
        return Finding(False, f"{measured}: worse")
    return Finding(False, f"{measured}: not shown to be no worse; more held-out items show more, or raise register.tolerance")


def _lower_is_better(key: str) -> bool:
    metric = metric_of(key)
    return metric is not None and metric.better == "lower"
