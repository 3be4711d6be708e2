"""docs/own-corpus.md followed by someone with 300 pictures, and with few training steps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.faults.repro import set_params
from core.png import encode_png
from tests.pages.commands import ROOT, blocks_of
from tests.pages.project import FEW_STEPS, ran

PAGE = ROOT / "docs/own-corpus.md"
NUM_PICTURES = 300
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "yellow": (230, 210, 40)}
PLACES = ("left", "right", "top", "bottom")
# The gates are the page's, but for what twelve steps cannot reach.
SMALL: dict[str, Any] = FEW_STEPS | {
    "ingest.vocab_size": 400,
    "register.default_bounds": {},
    # The tiny autoencoder halves a side once less than the page's.
    "train.model.patch_side": 8,
}


class OwnCorpus(NamedTuple):
    """said: by `make repro`. params: the parameters that it ran with; experiments leave others behind."""

    project: Path
    said: str
    params: str


def follow_the_page(project: Path) -> OwnCorpus:
    """Its steps 1 to 3, in a clone."""
    write_pictures(project / "pictures")
    (wanted,) = blocks_of(PAGE.read_text(), language="yaml")
    (project / "mine.yaml").write_text(wanted)
    configuring, making, *_ = blocks_of(PAGE.read_text(), language="")
    assert making == "make repro\n"
    said = ran(project, *configuring.splitlines())
    assert "ingest.image_side_px: 32 -> 64" in said
    set_params(project / "params.yaml", SMALL)
    params = (project / "params.yaml").read_text()
    return OwnCorpus(project, ran(project, *making.splitlines()), params)


def write_pictures(folder: Path) -> None:
    """Squares of a colour at a place, captioned; noise around them, so that no two are alike. And a broken one, and a copy."""
    folder.mkdir()
    generator = np.random.default_rng(24)
    for number in range(NUM_PICTURES):
        colour, place = list(COLOURS)[number % 4], PLACES[number // 4 % 4]
        pixels = generator.integers(0, 60, (72, 80, 3), np.uint8)
        row, column = {"left": (24, 4), "right": (24, 52), "top": (4, 28), "bottom": (44, 28)}[place]
        pixels[row : row + 24, column : column + 24] = COLOURS[colour]
        (folder / f"{number + 1:04d}.png").write_bytes(encode_png(pixels))
        (folder / f"{number + 1:04d}.txt").write_text(f"number {number} is a {colour} square on the {place}\n")
    (folder / "broken.png").write_bytes(b"broken")
    (folder / "broken.txt").write_text("what no program opens\n")
    for ending in ("png", "txt"):
        shutil.copyfile(folder / f"0001.{ending}", folder / f"0001 (copy).{ending}")
