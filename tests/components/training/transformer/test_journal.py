"""A run's course is kept over kills, and its lines and pictures say what they should."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.training.pictures import GAP_PX, LABEL_PX, over_training, save_pairs, save_samples, sheet_name
from components.training.transformer.journal import last_values, shown_names, tables, truncate_after
from core.files import read_json_lines


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    entries = [{"step": step, "time_ms": 1, "train/loss": 10.0 / step, "train/loss_text": 0.5} for step in (2, 4, 6)]
    entries.insert(2, {"step": 4, "time_ms": 1, "validation/loss": 7.0})
    # A kill cut the last line short.
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"step": 8, "tra')
    return path


def test_a_cut_line_is_left_out_and_later_steps_are_forgotten(journal: Path) -> None:
    assert [entry["step"] for entry in read_json_lines(journal)] == [2, 4, 4, 6]
    truncate_after(journal, 4)
    assert [entry["step"] for entry in read_json_lines(journal)] == [2, 4, 4]
    truncate_after(journal, 0)
    assert read_json_lines(journal) == []
    truncate_after(journal.with_name("none.jsonl"), 3)
    assert not journal.with_name("none.jsonl").exists()


def test_a_line_after_a_cut_one_is_not_lost(journal: Path) -> None:
    truncate_after(journal, 6)
    with journal.open("a") as file:
        file.write('{"step": 8, "train/loss": 1.0}\n')
    assert [entry["step"] for entry in read_json_lines(journal)] == [2, 4, 4, 6, 8]


def test_each_split_has_a_table_of_its_own_without_empty_cells(journal: Path) -> None:
    written = tables(journal)
    rows = list(csv.DictReader(written["history.csv"].splitlines()))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert [row["loss"] for row in rows] == ["5", "2.5", "1.66667"]
    assert list(csv.DictReader(written["validation.csv"].splitlines())) == [{"step": "4", "loss": "7"}]
    assert "" not in {cell for row in rows for cell in row.values()}
    assert last_values(journal, 6) == {"train/loss": 10 / 6, "train/loss_text": 0.5, "validation/loss": 7.0}


def test_the_held_out_figures_that_are_kept_are_those_of_the_weights_that_are(journal: Path) -> None:
    truncate_after(journal, 6)
    with journal.open("a") as file:
        file.write('{"step": 6, "validation/loss": 8.0, "train/loss_image_by_time/0-0.25": 9.0}\n')
    assert last_values(journal, 6) == {"train/loss": 10 / 6, "train/loss_text": 0.5, "validation/loss": 8.0}
    assert last_values(journal, 4) == {"train/loss": 10 / 6, "train/loss_text": 0.5, "validation/loss": 7.0}


def test_errors_by_noise_level_are_columns_in_the_order_of_the_levels(journal: Path) -> None:
    levels = {f"validation/x0_error/{level}": 2 * float(level) for level in ("0.9", "1e-05", "0.25")}
    journal.write_text(json.dumps({"step": 4, "time_ms": 1, "validation/loss": 7.0, "validation/caption_gap": 0.5, **levels}))
    written = tables(journal)["validation.csv"].splitlines()
    assert written == ["step,loss,caption_gap,x0_error_1e-05,x0_error_0.25,x0_error_0.9", "4,7,0.5,2e-05,0.5,1.8"]
    assert tables(journal)["history.csv"] == "step\n"


def test_speeds_stand_among_mlflows_system_metrics() -> None:
    entry = {"step": 4, "time_ms": 1, "train/loss": 2.0, "perf/tokens_per_s": 3.0}
    assert shown_names(entry) == {"train/loss": 2.0, "system/tokens_per_s": 3.0}


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_pictures_keep_their_pixels_and_have_labels(tmp_path: Path) -> None:
    images = torch.arange(3 * 32 * 32 * 3, dtype=torch.int64).remainder(256).to(torch.uint8).view(3, 32, 32, 3)
    save_pairs(tmp_path / "pairs.png", images, images.flip(0), ("original", "reconstructed"))
    pixels, top, height = _pixels(tmp_path / "pairs.png"), GAP_PX + LABEL_PX, LABEL_PX + 100
    assert pixels.shape == (2 * height + 4, 3 * 100 + 4, 3)
    for row, line in enumerate((images, images.flip(0))):
        for column, image in enumerate(line.numpy()):
            upper, left = row * height + top, 4 + 100 * column
            assert np.array_equal(pixels[upper : upper + 96 : 3, left : left + 96 : 3], image)
        assert (pixels[row * height + GAP_PX : row * height + LABEL_PX] < 128).any(), "a label stands above each line"
    save_samples(tmp_path / "samples.png", images, ["a red three", "", "word " * 90])
    pixels = _pixels(tmp_path / "samples.png")
    assert pixels.shape[1] == 3 * 196 + 4
    assert np.array_equal(pixels[4:196:6, 200:392:6], images[1].numpy())
    inked = [(pixels[200:, 4 + 196 * column : 196 * (column + 1)] < 128).any() for column in range(3)]
    assert inked == [True, False, True], "each prompt stands under its picture"


def test_of_many_sheets_the_first_the_last_and_some_between_are_shown(tmp_path: Path) -> None:
    steps = (0, 30, 60, 90, 120, 150, 180, 200, 1_000_000)
    for number, last in enumerate(steps, start=1):
        (tmp_path / sheet_name(last)).touch()
        for kept in steps[:number]:
            names = [path.name for path in over_training(tmp_path, kept)]
            assert names == sorted(set(names)) and len(names) == min(number, 6)
            assert {sheet_name(0), sheet_name(kept), sheet_name(last)} <= set(names)
    evenly, around = ([path.name for path in over_training(tmp_path, kept)] for kept in (1_000_000, 120))
    assert evenly == [sheet_name(step) for step in (0, 60, 90, 150, 180, 1_000_000)]
    assert around == [sheet_name(step) for step in (0, 60, 120, 150, 180, 1_000_000)], "it stands in for its neighbour"
