"""Charts and the graph as shapes, numbers as people read them, and the corpus's first documents."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from components.data.documents import Document, ImageSegment, TextSegment, write_documents
from components.report.charts import BOTTOM, HEIGHT, LEFT, MOST_POINTS, MOST_ROWS, RIGHT, TOP, WIDTH, Series, chart
from components.report.examples import NUM_EXAMPLES, read_examples
from components.report.graph import edges, nodes, stages_of
from components.report.numbers import number, with_interval, written
from components.report.pictures import MOST_WIDTH_PX, file_uri
from core.png import encode_png

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("value", "plain", "measured"),
    [
        (16000, "16,000", "16,000"),
        (1.0, "1", "1.000"),
        (0.99846, "0.9985", "0.998"),
        (0.0, "0", "0.000"),
        (-0.25, "-0.25", "-0.250"),
        (11.0867, "11.09", "11.09"),
        (0.00056, "0.00056", "5.6e-04"),
        (math.nan, "nan", "nan"),
    ],
)
def test_numbers_have_the_digits_that_say_something(value: float, plain: str, measured: str) -> None:
    assert (number(value), written(value)) == (plain, measured)


def test_a_figure_stands_with_its_interval() -> None:
    assert with_interval(0.5, {"low": 0.25, "high": 0.75, "num_items": 8}) == "0.500 (0.250 to 0.750)"
    assert with_interval(0.5, None) == "0.500"


def test_a_chart_spans_its_points() -> None:
    drawn = chart("Loss", "step", [Series("training", [(0, 1.0), (5, 10.0), (10, 100.0)]), Series("none", [])], log=True)
    assert drawn is not None and [curve.name for curve in drawn.curves] == ["training"]
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    assert drawn.curves[0].path == f"{LEFT},{bottom} {(LEFT + right) / 2:g},{(TOP + bottom) / 2:g} {right},{TOP}"
    assert drawn.rows == [["step", "training"], ["0", "1.000"], ["5", "10.00"], ["10", "100.00"]]
    assert all(LEFT <= tick.at <= right for tick in drawn.across) and len(drawn.up) >= 3


def test_a_chart_takes_whatever_was_measured() -> None:
    assert chart("Loss", "step", [Series("a", [(1, math.nan)]), Series("b", [])]) is None
    alone = chart("Loss", "step", [Series("a", [(5, 0.0), (6, math.inf)])], log=True)
    assert alone is not None and len(alone.curves[0].dots) == 1 and alone.up
    long = chart("Loss", "step", [Series("a", [(step, step) for step in range(10_000)])])
    assert long is not None and len(long.curves[0].path.split()) <= MOST_POINTS and len(long.rows) <= MOST_ROWS + 1
    assert long.rows[-1][0] == "9,999", "the last point stays"
    spans = chart("KID", "scale", [Series("a", [(1, 0.5), (2, 0.25)], [(0.25, 1.0), None])], mark=(4, "used: 4"))
    assert spans is not None and spans.mark is not None and spans.mark.at == WIDTH - RIGHT
    ((x, upper, lower),) = spans.curves[0].spans
    assert x == LEFT and upper < spans.curves[0].dots[0][1] < lower


def test_the_graph_is_the_one_of_dvc() -> None:
    stages = stages_of(YAML(typ="safe").load((ROOT / "dvc.yaml").read_text()))
    after = {stage.name: stage.after for stage in stages}
    assert list(after)[:4] == ["inputs", "ingest", "validate@documents", "autoencoder"] and list(after)[-1] == "report"
    assert after["validate@latents"] == ("encode",) and after["train"] == ("validate@latents",)
    assert after["register"] == after["infer"] == ("export",) and set(after["report"]) == {"register", "infer"}
    rows = nodes(stages, {"train": 100.0, "encode": 25.0})
    bars = {row.stage.name: row.bar for row in rows}
    assert bars["train"] == 4 * bars["encode"] > 0 == bars["inputs"]
    assert len(edges(rows)) == sum(map(len, after.values()))


def test_examples_are_the_first_training_documents_of_each_corpus(tmp_path: Path) -> None:
    image = ImageSegment(encode_png(np.zeros((8, 8, 3), np.uint8)))
    scenes = [Document(key=f"{i}", source="scenes", split="train", segments=(TextSegment(f"no {i}"), image)) for i in range(20)]
    prose = [Document(key="a", source="prose", split="train", segments=(TextSegment("word " * 400),))]
    write_documents(tmp_path, "train", [*scenes, *prose], 4)
    found = read_examples(tmp_path)
    assert [example.texts for example in found["scenes"]] == [[f"no {i}"] for i in range(NUM_EXAMPLES)]
    assert all(len(example.pictures) == 1 for example in found["scenes"])
    ((text,),) = [example.texts for example in found["prose"]]
    assert len(text) < 410 and text.endswith(" ...")


def test_a_large_sheet_is_made_smaller() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 1400, 3), np.uint8)
    assert file_uri(encode_png(noise[:40, :40])).startswith("data:image/png")
    large = file_uri(encode_png(noise))
    assert large.startswith("data:image/jpeg") and len(large) < len(encode_png(noise)) and MOST_WIDTH_PX < 1400
