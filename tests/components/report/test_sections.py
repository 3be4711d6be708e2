"""Sections of the page from a run's files: figures at their own places, notes as they are written, tables that are whole."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from components.report.figures import curve_of
from components.report.page import page
from components.report.run_files import Run
from core.errors import BadInput
from core.files import write_bytes, write_json
from core.png import encode_png

AXIS = "Losses fall fast and then slowly, so their axis is logarithmic"


def run_of(folder: Path, **tables: str) -> Run:
    (folder / "train").mkdir(exist_ok=True)
    for name, text in tables.items():
        (folder / f"train/{name}.csv").write_bytes(text.encode("latin-1"))
    return Run(reports=folder, pipeline={"stages": {}}, settings={"train": {"seed": 17}}, training={"run_id": "a"}, examples={})


def test_a_curve_stands_at_its_own_noise_levels_with_their_intervals(tmp_path: Path) -> None:
    values = {"0.9": 0.5, "0.125": 0.25, "0.121": 0.2, "0.333": 0.375}
    metrics = {f"image/x0_error/{level}": value for level, value in values.items()}
    intervals = {key: {"low": value - 0.01, "high": value + 0.01} for key, value in metrics.items()}
    del intervals["image/x0_error/0.9"]
    write_json(tmp_path / "evaluate/metrics.json", metrics | {"image/x0_error_of_mean": 1.0})
    write_json(tmp_path / "evaluate/intervals.json", intervals)
    curve = curve_of(run_of(tmp_path), "image/x0_error", called="the model")
    assert curve is not None and curve.name == "the model"
    # Two of them in one hundredth.
    assert curve.points == [(0.121, 0.2), (0.125, 0.25), (0.333, 0.375), (0.9, 0.5)]
    assert curve.spans == [(0.19, 0.21000000000000002), (0.24, 0.26), (0.365, 0.385), None]
    assert curve_of(run_of(tmp_path), "conditioning/wrong_caption_x0_gap") is None


def test_a_note_begins_with_a_capital_and_a_parameter_as_it_is_written(tmp_path: Path) -> None:
    notes = ["evaluate.weights.clip is empty: no CLIP", "evaluate.weights.clip: a/b is not there", "no text, then: none"]
    write_json(tmp_path / "evaluate/shown.json", {"notes": notes})
    html = page(run_of(tmp_path))
    assert all(f"{said}." in html for said in (*notes[:2], "No text, then: none")) and "Evaluate.weights" not in html


@pytest.mark.parametrize(
    ("lowest", "said"), [("0.5", f"{AXIS}. Held out"), ("0", f"{AXIS}, but not where a value is 0 or less")]
)
def test_an_axis_is_called_logarithmic_where_it_is(tmp_path: Path, lowest: str, said: str) -> None:
    html = page(run_of(tmp_path, history=f"step,image,learning_rate\n1,4.0,{lowest}\n2,2.0,1.5\n"))
    assert said in html
    assert ("(Learning rate)" in html) == (lowest == "0")


@pytest.mark.parametrize(
    "text",
    [
        "step,image\n<<<<<<< HEAD\n1,2.0\n",
        "<<<<<<< HEAD\nstep,image\n1,2.0\n",
        "step,image\n1,low\n",
        "step,image\n1,2.0,3.0\n",
        "step,image\n1,2\x00\n",
        "step,image\n1,\xe9\n",
    ],
)
def test_a_broken_table_is_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match=r"train/history.csv is no table of numbers \(.+\); delete it and run `dvc repro`"):
        run_of(tmp_path, history=text).columns("train/history.csv")


def test_empty_cells_and_numbers_of_any_kind_are_read(tmp_path: Path) -> None:
    run = run_of(tmp_path, history="step,image,rate\n1,,nan\n2,0.5\n")
    columns = run.columns("train/history.csv")
    assert columns["step"] == [1, 2] and columns["image"] == [None, 0.5]
    first, second = columns["rate"]
    assert first is not None and math.isnan(first) and second is None
    assert run.columns("train/validation.csv") == {}


@pytest.mark.parametrize(("kept", "number_of_marks"), [(20, 1), (30, 0)])
def test_the_sheet_of_the_weights_that_were_kept_is_marked_where_they_are_not_the_last(
    tmp_path: Path, kept: int, number_of_marks: int
) -> None:
    for step in (0, 20, 30):
        sheet = encode_png(np.full((4, 4, 3), step, np.uint8))
        write_bytes(tmp_path / f"train/samples/step-{step:08d}.png", sheet)
    write_json(tmp_path / "train/metrics.json", {"selected_step": kept, "num_parameters": 10, "steps": 30})
    html = page(run_of(tmp_path))
    assert html.count("After 20 steps, the weights that were kept") == number_of_marks
    # As a heading and for those who hear the page.
    assert html.count("the weights that were kept") == 2 * number_of_marks and "After 30 steps" in html
