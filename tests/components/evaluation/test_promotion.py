"""A version becomes champion within its bounds, and only where it is shown to be no worse than the present one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest
import torch

from components.evaluation.intervals import Items, items_of
from components.evaluation.kept_items import KeptItems
from components.evaluation.promotion import Measured, Rule, bounded, compared
from model.config import DiffusionProcess, PredictionType
from model.diffusion.noise import add_noise, predicted_x_0
from model.diffusion.schedules import times_of_equal_snr
from pipelines.params import load

OBJECTS, BITS, LOSS = "text_to_image/objects_right", "text/bits_per_byte", "image/diffusion_loss"
NUM = 400
RULE = Rule(bounds={}, default_bounds={OBJECTS: 0.9, BITS: 4.0}, compare=(OBJECTS, BITS), tolerance=0.0)
DOCUMENTS = {str(at): "d" for at in range(NUM)}


def first_right(number: int) -> Items:
    return items_of([str(at) for at in range(NUM)], [float(at < number) for at in range(NUM)], [1.0] * NUM)


def version(right: int = 0, items: Mapping[str, Items] | None = None, **changes: object) -> Measured:
    found = {OBJECTS: first_right(right)} if items is None else items
    kept = KeptItems(found, DOCUMENTS, {"seed": 17}, {"prediction_type": "flow"}, autoencoder="a")
    return Measured({key: each.value for key, each in found.items()}, kept._replace(**changes))


@pytest.mark.parametrize(
    ("metrics", "holds", "said"),
    [
        ({OBJECTS: 0.9, BITS: 4.0}, True, "0.9 reaches its least value 0.9"),
        ({OBJECTS: 0.95, BITS: 4.1}, False, "4.1 exceeds its greatest value 4"),
        ({OBJECTS: 0.89, BITS: 2.0}, False, "0.89 misses its least value 0.9"),
        ({OBJECTS: float("nan"), BITS: 2.0}, False, "nan misses"),
        ({OBJECTS: 0.95, BITS: float("nan")}, False, "nan exceeds"),
        ({OBJECTS: float("inf"), BITS: 2.0}, False, "inf misses"),
        # The corpora do not have it.
        ({BITS: 2.0}, True, f"{OBJECTS} was not measured on these corpora, so its least value 0.9 is left out"),
        ({}, False, "none of register.default_bounds was measured"),
    ],
)
def test_bounds_of_any_corpus(metrics: dict[str, float], holds: bool, said: str) -> None:
    conditions = list(bounded(metrics, RULE))
    assert all(each.holds for each in conditions) is holds
    assert any(said in each.said for each in conditions), conditions


def test_without_any_bound_that_is_said() -> None:
    (said,) = bounded({OBJECTS: 0.1}, RULE._replace(default_bounds={}))
    assert said == (True, "register.bounds and register.default_bounds are empty, so no bound says whether the model is good")
    (own,) = bounded({OBJECTS: 0.1}, RULE._replace(default_bounds={}, bounds={OBJECTS: 0.05}))
    assert own.said.startswith(OBJECTS)


def test_the_committed_bounds_hold_for_no_model_that_predicts_nothing() -> None:
    """Whatever it would have predicted; its diffusion loss would be 0.5 with epsilon, 1 with v and 2 with flow."""
    bounds = load(Path(__file__).parents[3] / "params.yaml").register.default_bounds
    for prediction_type in get_args(PredictionType):
        process = DiffusionProcess(prediction_type)
        (time,) = times_of_equal_snr(process, (0.5,))
        torch.manual_seed(0)
        x_0, noise = torch.randn(2, 500, 16)
        at = torch.tensor(time)
        x_t = add_noise(process, x_0, noise, at)
        error = (predicted_x_0(process, x_t, torch.zeros_like(x_t), at) - x_0).square().mean().item()
        found = [
            each for each in bounded({"image/x0_error/0.5": error}, RULE._replace(default_bounds=bounds)) if not each.holds
        ]
        assert [each.said.split()[0] for each in found] == ["image/x0_error/0.5"], (prediction_type, error)


def test_a_bound_of_ones_own_must_be_measured_and_goes_before_a_default_one() -> None:
    own = RULE._replace(bounds={LOSS: 0.5, OBJECTS: 0.5})
    (missing,) = [each for each in bounded({OBJECTS: 0.6, BITS: 2.0}, own) if not each.holds]
    assert missing.said == f"{LOSS} was not measured, and its greatest value is 0.5"
    assert all(each.holds for each in bounded({OBJECTS: 0.6, BITS: 2.0, LOSS: 0.5}, own))


@pytest.mark.parametrize(
    ("mine", "theirs", "tolerance", "holds", "said"),
    [
        (380, 380, 0.0, True, "came out the same as the champion's on every item"),
        (390, 370, 0.0, True, ": better"),
        (370, 390, 0.0, False, ": worse"),
        # One item of 400: more than one resample in forty leaves it out.
        (381, 380, 0.0, True, ": not worse"),
        (379, 380, 0.0, False, ": not shown to be no worse; more held-out items show more, or raise register.tolerance"),
        (379, 380, 0.01, True, ": not worse by more than 1.0% of it"),
        (370, 390, 0.1, True, "worse beside"),
    ],
)
def test_rule(mine: int, theirs: int, tolerance: float, holds: bool, said: str) -> None:
    found = compared(version(mine), version(theirs), RULE._replace(tolerance=tolerance))
    assert found.holds is holds and said in found.said, found.said


def test_a_mixed_difference_is_no_evidence() -> None:
    """Better on some items and worse on as many: nobody knows."""
    order = [*range(20, NUM), *range(20)]
    theirs = items_of([str(at) for at in range(NUM)], [float(order[at] < 200) for at in range(NUM)], [1.0] * NUM)
    found = compared(version(items={OBJECTS: first_right(200)}), version(items={OBJECTS: theirs}), RULE)
    assert not found.holds and "not shown to be no worse" in found.said


def test_less_is_better_where_the_metric_says_so() -> None:
    few, many = version(items={BITS: first_right(100)}), version(items={BITS: first_right(150)})
    assert compared(few, many, RULE).holds and not compared(many, few, RULE).holds
    assert "0.125 better" in compared(few, many, RULE).said


def test_the_first_figure_that_both_have_is_compared() -> None:
    bits = {BITS: first_right(100)}
    both = version(items={OBJECTS: first_right(300), **bits})
    other = version(items={OBJECTS: first_right(200), **bits})
    assert compared(both, other, RULE).said.startswith(OBJECTS)
    assert compared(both, version(items={BITS: first_right(90)}), RULE).said.startswith(BITS)
    nothing = compared(both, version(items={LOSS: first_right(1)}), RULE)
    assert not nothing.holds and f"{BITS} was measured item by item in one of the two alone" in nothing.said


def test_a_figure_that_is_the_same_on_every_item_does_not_tell_two_models_apart() -> None:
    few, many = (version(items={OBJECTS: first_right(NUM), BITS: first_right(number)}) for number in (100, 150))
    assert compared(few, many, RULE).holds and not compared(many, few, RULE).holds
    assert compared(many, few, RULE).said.startswith(BITS)
    assert compared(few, few, RULE) == (True, f"{OBJECTS}, {BITS} came out the same as the champion's on every item")


def test_a_figure_further_down_that_is_shown_to_be_worse_is_enough() -> None:
    champion = version(items={OBJECTS: first_right(380), BITS: first_right(100)})
    better_and_worse = version(items={OBJECTS: first_right(390), BITS: first_right(200)})
    found = compared(better_and_worse, champion, RULE)
    assert not found.holds and found.said.startswith(BITS) and found.said.endswith(": worse")
    # One item of 400 is not shown to be.
    perhaps = version(items={OBJECTS: first_right(390), BITS: first_right(101)})
    assert compared(perhaps, champion, RULE).holds and compared(perhaps, champion, RULE).said.startswith(OBJECTS)
    # Within the tolerance: a share of the champion's figure.
    assert compared(better_and_worse, champion, RULE._replace(tolerance=2.0)).holds


def test_what_cannot_be_compared_is_refused_with_a_way_out() -> None:
    good = version(390)
    assert compared(good, None, RULE) == (True, "there is no champion yet")
    before = Measured({OBJECTS: 0.5}, None)
    for mine, theirs, said in (
        (good, before, "the champion has no items of its evaluation"),
        (before, good, "this version has no items of its evaluation"),
        (
            good,
            before._replace(why_none="it is torn"),
            "the champion has no items of its evaluation to be compared by (it is torn);",
        ),
        (
            good,
            version(370, held_out={}),
            f"{OBJECTS} was measured on other held-out documents (400 of 400 have another content)",
        ),
        (good, version(370, settings={"seed": 18}), f"{OBJECTS} was measured with other settings (evaluate.seed 18"),
        (good, version(items={OBJECTS: items_of("ab", [1.0, 1.0], [1.0, 1.0])}), "on other items"),
    ):
        found = compared(mine, theirs, RULE)
        assert not found.holds and said in found.said and "--without-comparison" in found.said
