"""The step that is kept is the best of the curve, training ends with patience, and neither a kill nor workers change it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks import recipes
from components.runtime.tracking import Tracker
from components.training.checkpoint_folders import folder_of
from components.training.checkpointer import Checkpointer
from components.training.pictures import sheet_name
from components.training.run_folder import RunFolder
from components.training.transformer.config import SelectionConfig, TrainConfig
from components.training.transformer.run import FINISHED, TransformerRun
from components.training.transformer.selection import FIGURES, Selection
from components.training.transformer.trainer import Progress, TransformerTrainer
from components.training.transformer.worker import train
from core.errors import BadInput
from core.files import read_json
from core.manifest import read_manifest
from pipelines import paths
from pipelines.train import publish
from tests.components.training.conftest import BEST, LAST, STOPPING, Corpus, changed
from tests.components.training.transformer.test_trainer import ALONE, Notes, assert_equal_bits, fresh, trained, trainer_of


class Killed(RuntimeError):
    """What ends a process in the middle of a run."""


class Fragile(Notes):
    """Ends the process that logs a step."""

    def __init__(self, checkpointer: Checkpointer, at: int) -> None:
        super().__init__(checkpointer)
        self.at = at

    def log(self, progress: Progress) -> None:
        super().log(progress)
        if progress.step == self.at:
            raise Killed


def taken(config: SelectionConfig, curve: np.ndarray) -> Selection:
    """What is known after a validation at each of steps 10, 20, ... until the training ends."""
    selection = Selection(config, 10 * len(curve))
    for number, figure in enumerate(curve, start=1):
        selection.take(10 * number, figure)
        if selection.last_step == 10 * number:
            break
    return selection


@pytest.mark.parametrize("figure", ["image", "caption_gap"])
def test_the_best_step_is_the_curves_extreme_and_patience_counts_from_it(figure) -> None:
    seed = int(np.random.default_rng().integers(2**31))
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    for _ in range(200):
        # Of few values, so that some come twice: an equal figure is no improvement.
        curve = generator.integers(0, 12, size=int(generator.integers(1, 15))).astype(float)
        curve[generator.random(len(curve)) < 0.1] = math.nan
        patience = int(generator.integers(0, 5))
        best = np.nanargmax if FIGURES[figure].higher_is_better else np.nanargmin

        def best_at(number: int, curve: np.ndarray = curve, best=best) -> int:
            """Of the validations up to this one; -1 where none is a number."""
            return int(best(curve[: number + 1])) if np.isfinite(curve[: number + 1]).any() else -1

        ends = (number for number in range(len(curve)) if patience and number - best_at(number) >= patience)
        end = next(ends, len(curve) - 1)
        found = taken(SelectionConfig(weights="best", figure=figure, patience=patience, min_improvement=0.0), curve)
        assert found.last_step == 10 * (end + 1)
        assert found.best_step == 10 * (best_at(end) + 1)
        assert found.kept_step == (found.best_step or found.last_step)


def test_small_improvements_keep_weights_and_use_up_patience() -> None:
    config = SelectionConfig(weights="best", figure="text", patience=2, min_improvement=0.5)
    found = taken(config, np.array([3.0, 2.9, 2.4, 2.3, 2.2, 1.0]))
    # 2.9 is less than 0.5 below 3.0; 2.4 is 0.6 below it; then neither 2.3 nor 2.2 is 0.5 below 2.4.
    assert (found.best_step, found.last_step, found.kept_step) == (50, 50, 50)
    exactly = taken(config, np.array([3.0, 2.5, 2.5, 1.4]))
    assert (exactly.best_step, exactly.last_step) == (20, 30), "an improvement by the least itself is none"
    last = dataclasses.replace(config, weights="last")
    assert taken(last, np.array([3.0, 4.0, 5.0, 1.0])).kept_step == 30


def test_what_is_said_of_it() -> None:
    config = SelectionConfig(weights="best", figure="image", patience=2, min_improvement=0.0)
    curve = np.array([3.0, 2.0, 4.0, 2.5, 1.0])
    said = "stopped at step 40 of 50: held-out image loss has not fallen for 2 validations; weights of step"
    assert taken(config, curve).sentence() == f"{said} 20 are kept, where held-out image loss was lowest"
    assert taken(dataclasses.replace(config, weights="last"), curve).sentence() == f"{said} 40 are kept"
    patient = dataclasses.replace(config, patience=0)
    kept = "weights of step 50 are kept, where held-out image loss was lowest"
    assert taken(patient, curve).sentence() == f"trained to step 50; {kept}"
    nowhere = "trained to step 20; weights of step 20 are kept, because held-out image loss was never a number"
    assert taken(patient, np.array([math.nan, math.inf])).sentence() == nowhere
    gap = SelectionConfig(weights="best", figure="caption_gap", patience=1, min_improvement=0.5)
    said = "stopped at step 20 of 30: held-out caption gap has not risen by more than 0.5 for 1 validation; weights of step 20"
    assert taken(gap, np.array([0.0, 0.25, 3.0])).sentence() == f"{said} are kept, where held-out caption gap was highest"


@pytest.fixture(scope="module")
def whole(corpus: Corpus):
    """The run that nobody kills."""
    return trained(corpus, STOPPING)


def test_a_training_ends_early_with_the_weights_of_its_best_step(whole) -> None:
    notes, state = whole
    curve = {step: losses.image for step, losses in notes.validations.items()}
    assert min(curve, key=curve.__getitem__) == BEST, curve
    assert sorted(curve) == list(range(2, LAST + 1, 2)), curve
    assert max(notes.losses) == max(notes.sampled) == LAST, "what is done after the last step is done after this one"
    assert (state.selection.best_step, state.selection.last_step, state.selection.kept_step) == (BEST, LAST, BEST)
    assert state.best_model is not None
    for name, parameter in state.best_model.named_parameters():
        assert torch.equal(parameter, notes.sampled[BEST][name]), name
    assert not torch.equal(state.best_model.head.weight, state.ema_model.head.weight)
    state.keep_selected()
    assert_equal_bits(state.ema_model, state.best_model)


def test_what_is_selected_changes_no_step(corpus: Corpus, whole) -> None:
    plain = dataclasses.replace(STOPPING, selection=dataclasses.replace(STOPPING.selection, weights="last", patience=0))
    notes, state = trained(corpus, plain)
    assert max(notes.losses) == 24 and state.best_model is None and state.selection.kept_step == 24
    for step, progress in whole.notes.losses.items():
        assert progress.losses == notes.losses[step].losses
    for step, weights in whole.notes.sampled.items():
        assert all(torch.equal(weight, notes.sampled[step][name]) for name, weight in weights.items())


# Before the best step's checkpoint stands, right after it, and when the training has ended.
@pytest.mark.parametrize("killed_at", [15, 17, LAST])
def test_a_killed_run_selects_as_the_uninterrupted_one(corpus: Corpus, whole, tmp_path: Path, killed_at: int) -> None:
    state = fresh(corpus, STOPPING)
    trainer = trainer_of(corpus, STOPPING, state)
    with pytest.raises(Killed), RunFolder(folder=tmp_path).resumed(state, ALONE) as checkpointer:
        trainer.run(trainer.schedule(Fragile(checkpointer, killed_at)), first_step=1)
    again = trained(corpus, STOPPING, tmp_path)
    resumed_from = (killed_at - 1) // 4 * 4
    assert min(again.notes.losses) == resumed_from + 1
    assert torch.equal(again.state.selection.state, whole.state.selection.state)
    assert again.state.best_model is not None
    assert_equal_bits(again.state.best_model, whole.state.best_model)
    # The checkpoint of the last step says that nothing is left to be done.
    assert trained(corpus, STOPPING, tmp_path).notes.losses == {}


class FragileRun(TransformerRun):
    """One whose process ends after step 17."""

    def say(self, line: str, *, passes: bool = False) -> None:
        super().say(line, passes=passes)
        if line.startswith("step 17/"):
            raise Killed


def test_what_is_published_is_the_selected_model(
    corpus: Corpus, whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = corpus.run(STOPPING, tmp_path / "work/run", tracked_in=tmp_path)
    run.folder.mkdir(parents=True)
    fields = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    with pytest.raises(Killed):
        train(FragileRun(**fields), ALONE)
    train(run, ALONE)
    assert run.is_finished(FINISHED) and read_manifest(run.finished, kind=FINISHED)["step"] == BEST
    assert folder_of(run.store, BEST).exists() is False, "its checkpoint was not due, and its weights are kept all the same"
    kept = load_file(run.finished / "model.safetensors")
    assert whole.state.best_model is not None
    assert all(torch.equal(kept[name], weight) for name, weight in whole.state.best_model.named_parameters())
    facts = read_json(run.finished / "summary.json")
    sentence = f"stopped at step {LAST} of 24: held-out image loss has not fallen for 3 validations; weights of step {BEST} "
    assert (facts["steps"], facts["selected_step"]) == (LAST, BEST)
    assert facts["validation/loss_image"] == whole.notes.validations[BEST].image
    assert facts["selected_because"].startswith(sentence + "are kept")
    entries = [json.loads(line) for line in (tmp_path / "outbox/entries.jsonl").read_text().splitlines()]
    assert [entry["values"]["selection"] for entry in entries if entry["kind"] == "tags"] == [facts["selected_because"]]
    pictures = {entry["key"]: entry["step"] for entry in entries if entry["kind"] == "image"}
    kept = [entry["step"] for entry in entries if entry["kind"] == "image" and entry["key"] == "train_samples/after training"]
    assert kept == [BEST], "of the weights that are handed on, and of no others"
    assert pictures["train_samples/by step"] == BEST
    best, last = ((run.samples / sheet_name(step)).read_bytes() for step in (BEST, LAST))
    assert best != last
    monkeypatch.chdir(tmp_path)
    publish(run, "made", {}, {}, Tracker(run.identity))
    assert (tmp_path / "reports/train/samples.png").read_bytes() == best
    shown = sorted(path.name for path in (tmp_path / "reports/train/samples").iterdir())
    assert {sheet_name(0), sheet_name(BEST), sheet_name(LAST)} < set(shown) and len(shown) == 6


def test_the_benchmark_of_recipes_measures_the_selected_weights(
    corpus: Corpus, whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / paths.LATENTS.parent).mkdir()
    (tmp_path / paths.LATENTS).symlink_to(corpus.latents)
    (tmp_path / paths.QUARANTINE).mkdir()
    (tmp_path / paths.QUARANTINE / "latents.jsonl").touch()
    # The run that it is compared with was on the CPU.
    monkeypatch.setattr(recipes, "device", lambda: ALONE.device)
    model = recipes.trained("flow", STOPPING, tmp_path / "work")
    assert_equal_bits(model, whole.state.best_model)


def text_alone(corpus: Corpus, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> TransformerTrainer:
    """Its held-out rows without the documents that have images."""
    rows, validation = corpus.rows("train"), corpus.rows("validation")
    documents = validation._documents
    monkeypatch.setattr(validation, "_kept", documents.image_end == documents.image_start)
    return TransformerTrainer(config, fresh(corpus, config), rows, validation, ALONE)


@pytest.mark.parametrize("figure", ["image", "caption_gap", "text_after_image"])
def test_a_figure_that_cannot_be_measured_is_refused_before_the_first_step(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, figure
) -> None:
    config = changed(selection=SelectionConfig(weights="best", figure=figure, patience=0, min_improvement=0.0))
    with pytest.raises(
        BadInput, match=f"train.selection.figure is {figure}, .* take loss or text or text_elsewhere$"
    ) as raised:
        text_alone(corpus, config, monkeypatch)
    assert "\n" not in str(raised.value)
    trainer_of(corpus, config, fresh(corpus, config))
    unused = dataclasses.replace(config, selection=dataclasses.replace(config.selection, weights="last"))
    trainer = text_alone(corpus, unused, monkeypatch)
    measured = trainer.validate(1)
    assert (measured.images.x0_error, measured.images.caption_gap) == ({}, None)
    assert math.isnan(measured.figure("caption_gap"))
