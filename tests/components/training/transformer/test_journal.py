"""A run's course is kept over kills, and its lines and pictures say what they should."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.training.pictures import save_grid, save_pairs
from components.training.transformer.image_sampler import image_key
from components.training.transformer.journal import history_csv, last_values, truncate_after
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


def test_the_history_has_a_row_a_step(journal: Path) -> None:
    rows = list(csv.DictReader(history_csv(journal).splitlines()))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert [row["loss"] for row in rows] == ["5", "2.5", "1.66667"]
    assert [row["validation_loss"] for row in rows] == ["", "7", ""]
    assert last_values(journal) == {"train/loss": 10 / 6, "train/loss_text": 0.5, "validation/loss": 7.0}


def test_an_image_key_is_one_path_for_mlflow() -> None:
    assert image_key(3, "A red three, top/left!") == "samples/03-a-red-three-top-left"
    assert len(image_key(0, "word " * 50)) < 80


def test_grids_keep_their_pixels(tmp_path: Path) -> None:
    images = torch.arange(3 * 32 * 32 * 3, dtype=torch.int64).remainder(256).to(torch.uint8).view(3, 32, 32, 3)
    save_grid(tmp_path / "grid.png", [images[:2], images[2:]])
    with Image.open(tmp_path / "grid.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 100 + 4, 2 * 100 + 4, 3)
    assert np.array_equal(pixels[4:100:3, 104:200:3], images[1].numpy())
    assert np.array_equal(pixels[104:200:3, 4:100:3], images[2].numpy())
    assert (pixels[104:, 104:] == 255).all()
    save_pairs(tmp_path / "pairs.png", images, images)
    with Image.open(tmp_path / "pairs.png") as picture:
        assert picture.size == (3 * 100 + 4, 2 * 100 + 4)
