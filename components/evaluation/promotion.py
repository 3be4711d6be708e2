"""The rule by which a version becomes champion: its bounds hold, and it is shown to be no worse than the present one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from components.evaluation.comparison import Gain, gain, why_apart
from components.evaluation.intervals import LEVEL
from components.evaluation.kept_items import KeptItems
from components.evaluation.metrics import metric_of

OTHERWISE = "; --without-comparison of `python -m pipelines.promote` lets the bounds alone decide"


class Measured(NamedTuple):
    """What is known of a version."""

    metrics: Mapping[str, float]
    """By the keys of METRICS."""
    kept: KeptItems | None
    """None for a version from before they were kept, and where they cannot be read."""
    why_none: str = ""
    """Why they cannot be read, as a sentence without a full stop."""


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


class Condition(NamedTuple):
    """A condition of the rule, looked at. holds: whether it speaks for the version. said: a sentence without a full stop."""

    holds: bool
    said: str


def bounded(metrics: Mapping[str, float], rule: Rule) -> Iterator[Condition]:
    """One condition a bound, and one where there is none. Where default bounds are all there is and none of them applies, one
    more, which does not hold."""
    for key, bound in sorted({**rule.default_bounds, **rule.bounds}.items()):
        value, most = metrics.get(key), _lower_is_better(key)
        kind = "greatest" if most else "least"
        if value is None and key not in rule.bounds:
            yield Condition(True, f"{key} was not measured on these corpora, so its {kind} value {bound:.4g} is left out")
        elif value is None:
            yield Condition(False, f"{key} was not measured, and its {kind} value is {bound:.4g}")
        else:
            # A NaN and an infinity hold nowhere.
            holds = math.isfinite(value) and (value <= bound if most else value >= bound)
            verb = ("keeps to" if most else "reaches") if holds else ("exceeds" if most else "misses")
            yield Condition(holds, f"{key} {value:.4g} {verb} its {kind} value {bound:.4g}")
    if not rule.bounds and not rule.default_bounds:
        yield Condition(
            True, "register.bounds and register.default_bounds are empty, so no bound says whether the model is good"
        )
    elif not rule.bounds and not rule.default_bounds.keys() & metrics.keys():
        yield Condition(False, "none of register.default_bounds was measured, so nothing says that the model is good")


def compared(mine: Measured, champion: Measured | None, rule: Rule) -> Condition:
    """By the first figure of `rule.compare` that both have and that tells them apart, unless another one is shown to be worse.

    A figure near its ceiling says little: a model that finds every caption may draw far worse, and one whose items all came out
    alike (both find every caption) does not tell the two apart.
    """
    if champion is None:
        return Condition(True, "there is no champion yet")
    if mine.kept is None or champion.kept is None:
        whose, one = ("this version", mine) if mine.kept is None else ("the champion", champion)
        why = f" ({one.why_none})" if one.why_none else ""
        adds = "`python -m pipelines.register` where its bundle is adds them"
        return Condition(False, f"{whose} has no items of its evaluation to be compared by{why}; {adds}{OTHERWISE}")
    apart = {key: why_apart(key, mine.kept, champion.kept) for key in rule.compare}
    left_out = "; ".join(f"{key} was measured {why} in the champion" for key, why in apart.items() if why)
    keys = [key for key, why in apart.items() if not why]
    if not keys:
        return Condition(False, f"nothing of register.compare compares with the champion: {left_out}{OTHERWISE}")
    telling: list[Condition] = []
    for key in keys:
        ours, theirs = mine.kept.items[key], champion.kept.items[key]
        found = gain(key, ours, theirs)
        judged = _judged(key, ours.value, theirs.value, found, rule.tolerance)
        if found.high < -rule.tolerance * abs(theirs.value):
            return judged
        telling += [judged] * bool(found.low or found.high)
    alike = Condition(True, f"{', '.join(keys)} came out the same as the champion's on every item")
    return telling[0] if telling else alike


def _judged(key: str, mine: float, theirs: float, found: Gain, tolerance: float) -> Condition:
    # A NaN is no evidence.
    holds = found.low >= -tolerance * abs(theirs)
    by = f"{abs(found.value):.3g} {'better' if found.value > 0 else 'worse'}" if found.value else "equal"
    over = f"{LEVEL:.0%} of resamples {found.low:+.3g} to {found.high:+.3g} better, {found.num_items} items"
    measured = f"{key} {mine:.4g} is {by} beside the champion's {theirs:.4g} ({over})"
    if holds and found.low > 0:
        return Condition(True, f"{measured}: better")
    if holds:
        return Condition(True, f"{measured}: not worse" + (f" by more than {tolerance:.1%} of it" if tolerance else ""))
    if found.high < 0:
        return Condition(False, f"{measured}: worse")
    return Condition(False, f"{measured}: not shown to be no worse; more held-out items show more, or raise register.tolerance")


def _lower_is_better(key: str) -> bool:
    metric = metric_of(key)
    return metric is not None and metric.better == "lower"
