"""docs/fine-tuning.md followed in a copy of the project that the page on own corpora leaves behind, with few training steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faults.repro import set_params
from core.png import encode_png
from tests.pages.commands import ACTIVATE, ROOT, RUN_BY_FINE_TUNING, blocks_of
from tests.pages.own_corpus import COLOURS, OwnCorpus
from tests.pages.project import ran, stages_run

PAGE = ROOT / "docs/fine-tuning.md"
NUM_EDITS = 300
SMALL = {
    "train.max_steps": 12,
    "train.warmup_steps": 2,
    "train.batch_rows": 4,
    # Two squares and few words leave much of the rows that the other corpus needed.
    "validate.latents.min_packing_fill": 0.5,
}


def write_edits(folder: Path) -> None:
    """Squares that are to have another colour; noise around them, so that no two are alike."""
    folder.mkdir()
    generator = np.random.default_rng(25)
    for number in range(NUM_EDITS):
        pixels, stem = generator.integers(0, 60, (64, 64, 3), np.uint8), f"{number + 1:04d}"
        for which, colour in (("before", number % 4), ("after", (number + 1 + number // 4 % 3) % 4)):
            pixels[20:44, 20:44] = list(COLOURS.values())[colour]
            (folder / f"{stem}-{which}.png").write_bytes(encode_png(pixels))
            (folder / f"{stem}.txt").write_text(f"make the square {list(COLOURS)[colour]}\n")


@pytest.mark.timeout(1800)
def test_a_bundle_learns_to_edit(own_corpus: OwnCorpus) -> None:
    project = own_corpus.project.parent / "fine-tuning"
    # The environment's programs stay those of the project that it was copied from.
    shutil.copytree(own_corpus.project, project, symlinks=True)
    (project / "params.yaml").write_text(own_corpus.params)
    aside, configuring, *_ = blocks_of(PAGE.read_text(), language="")
    (program,) = blocks_of(PAGE.read_text(), language="python")
    (wanted,) = blocks_of(PAGE.read_text(), language="yaml")
    write_edits(project / "edits")
    (project / "program.py").write_text(program)
    (project / "edits.yaml").write_text(wanted)
    activating, configure, repro = configuring.splitlines()
    assert (activating, configure, repro) == (ACTIVATE, *RUN_BY_FINE_TUNING, "dvc repro")
    ran(project, *aside.splitlines(), activating, "python program.py", configure)
    set_params(project / "params.yaml", SMALL)
    said = ran(project, activating, f"{repro} train")
    assert stages_run(said) == ["inputs", "ingest", "validate@documents", "autoencoder", "encode", "validate@latents", "train"]
    before = json.loads((project / "start/manifest.json").read_text())["files"]
    trained = json.loads((project / "artifacts/train/manifest.json").read_text())
    assert trained["pretrained"]["name"] == "start"
    assert trained["files"]["model.safetensors"]["bytes"] == before["model.safetensors"]["bytes"]
    assert trained["files"]["model.safetensors"]["sha256"] != before["model.safetensors"]["sha256"]
    # What lies in `start` is watched: a training begins again where it has changed, and there alone.
    assert stages_run(ran(project, activating, f"{repro} train")) == ["inputs"]
