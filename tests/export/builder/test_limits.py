"""A graph above its limit is noticed at the limit itself, whichever graph, and what is no number is above every limit."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch

from export.builder.make_bundle import measure, problems
from export.builder.parity import Difference, difference, largest_error, reported
from export.bundle import DECODER_GRAPH, ENCODER_GRAPH, STEP_GRAPH
from export.config import ExportConfig
from tests.export.conftest import CONFIG, Made

GRAPHS = {
    STEP_GRAPH: CONFIG.max_transformer_error,
    "end_to_end": CONFIG.max_transformer_error,
    ENCODER_GRAPH: CONFIG.max_autoencoder_error,
    DECODER_GRAPH: CONFIG.max_autoencoder_error,
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_limit_is_where_the_configuration_puts_it(made: Made, graph: str) -> None:
    parity, limit = copy.deepcopy(made.parity), GRAPHS[graph]
    for error, wrong in (
        (math.nextafter(limit, 0), False),
        (limit, False),
        (math.nextafter(limit, 1), True),
        (1.04 * limit, True),
        (9 * limit, True),
        (math.inf, True),
        (math.nan, True),
    ):
        parity["graphs"][graph]["largest_error"] = error
        found = problems(parity)
        assert len(found) == wrong, error
        assert not wrong or found[0].startswith(f"{graph} differs from eager torch by ")


def test_each_graph_is_measured_against_the_limit_of_its_own(made: Made) -> None:
    """A decoder whose torch side is shifted by a known amount: let through below that limit, and not above it."""
    shifted = copy.deepcopy(made.autoencoder)
    with torch.no_grad():
        dict(shifted.network.named_parameters())["decoder.conv_out.bias"] += 2e-3
    for factor, wrong in ((0.8, True), (1.2, False)):
        limits = {"max_transformer_error": 1e-4, "max_autoencoder_error": factor * 2e-3}
        config = ExportConfig(opset=24, tensorrt="off", **limits)
        parity = measure(made.model, shifted, made.bundle.folder, made.bundle.generation, config)
        assert parity["graphs"][DECODER_GRAPH]["largest_error"] == pytest.approx(2e-3, rel=0.05)
        assert [said.split()[0] for said in problems(parity)] == [DECODER_GRAPH] * wrong


def test_what_is_no_number_is_infinitely_far() -> None:
    for wanted, got in ((1.0, math.nan), (math.nan, 1.0), (math.nan, math.nan), (1.0, math.inf), (-math.inf, -math.inf)):
        assert difference(torch.tensor([0.0, wanted]), torch.tensor([0.0, got])).max_abs == math.inf
    fine = Difference(1e-6, 1e-6, 1.0)
    for odd in (math.nan, math.inf):
        for values in ([fine, Difference(odd, 0, 0)], [Difference(odd, 0, 0), fine]):
            assert largest_error([{"logits": value} for value in values]) == math.inf
    assert largest_error([{"a": fine, "b": Difference(3e-6, 0, 0), "shape": "x"}, {"a": fine}]) == 3e-6


def test_the_report_is_rounded_and_json(made: Made) -> None:
    parity = copy.deepcopy(made.parity)
    parity["graphs"][STEP_GRAPH]["largest_error"] = 1.0449e-4
    parity["graphs"][DECODER_GRAPH]["shapes"][0]["pixels"] = Difference(math.inf, math.nan, 0.12345678)
    report: dict[str, Any] = reported(parity)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["graphs"][STEP_GRAPH]["largest_error"] == 1.0e-4
    assert report["graphs"][STEP_GRAPH]["limit"] == CONFIG.max_transformer_error
    assert report["graphs"][DECODER_GRAPH]["shapes"][0]["pixels"] == {"max_abs": "inf", "rel_l2": "nan", "cosine": 0.123457}
    # Rounding is for the report alone.
    assert [said.split()[0] for said in problems(parity)] == [STEP_GRAPH]


@pytest.mark.parametrize("field", ["max_transformer_error", "max_autoencoder_error"])
@pytest.mark.parametrize("value", [0.0, -1e-4, math.nan, math.inf])
def test_a_limit_that_lets_all_or_nothing_through_is_refused(field: str, value: float) -> None:
    limits = {"max_transformer_error": 1e-4, "max_autoencoder_error": 1e-3} | {field: value}
    with pytest.raises(ValueError, match=f"{field}: .* must be greater than 0"):
        ExportConfig(opset=24, tensorrt="off", **limits)
