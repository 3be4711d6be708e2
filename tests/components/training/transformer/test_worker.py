"""A training process reads the rows it should, resumes after the step it kept, and keeps the EMA weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.data.loader import PackedRows
from components.data.quarantine import Quarantined, write_quarantine
from components.runtime.world import World
from components.training.checkpoint_folders import checkpoints, folder_of
from components.training.transformer.journal import LOSSES
from components.training.transformer.run import FINISHED, TransformerRun, digests_of
from components.training.transformer.state import configuration
from components.training.transformer.worker import train
from core.files import read_json_lines
from model.transfusion import Transfusion
from tests.components.training.conftest import Corpus
from tests.components.training.transformer.reference import UNEVEN, assert_close, reference_run

ALONE = World(0, 1, torch.device("cpu"))
LEFT_OUT = [f"{split}-{number}" for split, numbers in (("train", (0, 3, 7, 10)), ("validation", (1, 4))) for number in numbers]


class Killed(RuntimeError):
    """What ends a process in the middle of a run."""


class Fragile(TransformerRun):
    """One whose process ends after step 5, two steps after a checkpoint."""

    def say(self, line: str, *, passes: bool = False) -> None:
        super().say(line, passes=passes)
        if line.startswith("step 5/"):
            raise Killed


@pytest.fixture
def run(corpus: Corpus, tmp_path: Path) -> TransformerRun:
    quarantine = tmp_path / "latents.jsonl"
    write_quarantine(quarantine, [Quarantined(key, "blurred") for key in LEFT_OUT])
    return corpus.run(UNEVEN, tmp_path, tracked_in=tmp_path, quarantine=quarantine)


def initial(rows: PackedRows) -> Transfusion:
    torch.manual_seed(UNEVEN.seed)
    return Transfusion(configuration(UNEVEN, rows))


def test_a_resumed_process_leaves_what_the_reference_does(corpus: Corpus, run: TransformerRun) -> None:
    rows, validation = (PackedRows(corpus.latents, split, run.quarantine) for split in ("train", "validation"))
    assert (rows.num_left_out, validation.num_left_out) == (4, 2)
    model = initial(rows)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    expected = reference_run(UNEVEN, model, rows, validation)

    fields = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    with pytest.raises(Killed):
        train(Fragile(**fields), ALONE)
    assert checkpoints(run.store) == [folder_of(run.store, 3)]
    train(run, ALONE)

    found: dict[int, dict[str, float]] = {}
    for entry in read_json_lines(run.journal):
        assert not found.setdefault(int(entry["step"]), {}).keys() & {name for name in entry if "/" in name}, "written twice"
        found[int(entry["step"])].update(entry)
    assert sorted(found) == list(range(1, 8))
    for number, step in enumerate(expected, start=1):
        losses = [found[number][f"train/{name}"] for name in LOSSES.values()]
        assert losses == pytest.approx(step.losses, rel=1e-4), number
        assert found[number]["train/gradient_norm"] == pytest.approx(step.gradient_norm, rel=1e-4), number
        measured = [found[number].get(f"validation/{name}") for name in LOSSES.values()]
        assert measured == (pytest.approx(step.validation, rel=1e-4) if number in (3, 6, 7) else [None] * len(LOSSES)), number
    assert run.is_finished(FINISHED)
    assert_close(load_file(run.finished / "model.safetensors"), expected[-1].ema_model, start)
    assert checkpoints(run.store) == [folder_of(run.store, step) for step in (7, 6)]
    kept = load_file(folder_of(run.store, 7) / "model.rank-0.safetensors")
    kept = {name.removeprefix("model/"): weight for name, weight in kept.items()}
    assert_close(kept, expected[-1].weights, start)
    assert "resumed from step 3" in run.lines.read_text()


@pytest.mark.parametrize(
    ("name", "value", "is_the_same_run"),
    [
        ("step_timeout_s", 1234.0, True),
        ("checkpoint_every_steps", 7, True),
        ("log_every_steps", 7, True),
        ("sample_every_steps", 7, True),
        ("micro_batch_rows", 1, True),
        ("activation_checkpointing", "full", True),
        ("learning_rate", 0.0123, False),
        ("batch_rows", 12, False),
    ],
)
def test_a_run_goes_on_where_nothing_that_is_learnt_was_changed(
    corpus: Corpus, tmp_path: Path, name: str, value: object, is_the_same_run: bool
) -> None:
    (tmp_path / "none.jsonl").touch()
    changed = dataclasses.replace(UNEVEN, **{name: value})
    assert getattr(changed, name) != getattr(UNEVEN, name)
    before, after = (digests_of(each, corpus.latents, tmp_path / "none.jsonl") for each in (UNEVEN, changed))
    assert (before == after) is is_the_same_run
