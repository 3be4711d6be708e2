"""The loop takes the steps of an independent reference, on any number of workers and after any restart, and it learns."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from components.runtime.world import World
from components.training.checkpointer import Checkpointer
from components.training.run_folder import RunFolder
from components.training.transformer.config import TrainConfig
from components.training.transformer.state import TransformerState, new_state
from components.training.transformer.trainer import Callback, Losses, Progress, TransformerTrainer, Validation
from core.errors import BadInput
from model.transfusion import Transfusion
from tests.components.training.conftest import BEST, CONFIG, LAST, STOPPING, Corpus, changed
from tests.components.training.transformer.reference import UNEVEN, Step, assert_close, reference_run

ALONE = World(0, 1, torch.device("cpu"))


class Notes(Callback):
    """A callback that remembers what it was told, and writes checkpoints where it is given what writes them."""

    def __init__(self, checkpointer: Checkpointer | None = None) -> None:
        self.checkpointer = checkpointer
        self.losses: dict[int, Progress] = {}
        self.validations: dict[int, Losses] = {}
        self.sampled: dict[int, dict[str, torch.Tensor]] = {}

    def log(self, progress: Progress) -> None:
        self.losses[progress.step] = progress

    def validated(self, step: int, validation: Validation) -> None:
        self.validations[step] = validation.losses

    def sample(self, step: int, ema_model: Transfusion) -> None:
        self.sampled[step] = copied(ema_model)

    def checkpoint(self, step: int, state: TransformerState) -> None:
        if self.checkpointer is not None:
            self.checkpointer.save(step)


def copied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


class Ended(NamedTuple):
    notes: Notes
    state: TransformerState


def fresh(corpus: Corpus, config: TrainConfig) -> TransformerState:
    return new_state(config, corpus.rows("train"), ALONE)


def trainer_of(corpus: Corpus, config: TrainConfig, state: TransformerState, world: World = ALONE) -> TransformerTrainer:
    return TransformerTrainer(config, state, corpus.rows("train"), corpus.rows("validation"), world)


def trained(corpus: Corpus, config: TrainConfig, folder: Path | None = None, world: World = ALONE) -> Ended:
    state = new_state(config, corpus.rows("train"), world)
    trainer = trainer_of(corpus, config, state, world)
    with RunFolder(folder=folder).resumed(state, world) if folder else nullcontext() as checkpointer:
        notes = Notes(checkpointer)
        trainer.run(trainer.schedule(notes), first_step=checkpointer.first_step if checkpointer else 1)
    return Ended(notes, state)


def assert_equal_bits(left: torch.nn.Module, right: torch.nn.Module) -> None:
    for (name, one), (_, other) in zip(left.named_parameters(), right.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_both_losses_fall_and_every_event_comes_when_due(corpus: Corpus) -> None:
    config = changed(max_steps=60, warmup_steps=5, log_every_steps=10, validate_every_steps=25, sample_every_steps=40)
    notes, state = trained(corpus, config)
    assert sorted(notes.losses) == [10, 20, 30, 40, 50, 60]
    assert sorted(notes.validations) == [25, 50, 60]
    assert sorted(notes.sampled) == [40, 60]
    first, last = notes.losses[10], notes.losses[60]
    assert last.losses.text < 0.7 * first.losses.text
    assert last.losses.image < first.losses.image
    assert last.losses.total == pytest.approx(last.losses.text + 3 * last.losses.image)
    assert (first.num_steps, first.learning_rate > last.learning_rate) == (10, True)
    # Every position in use is counted once, and none of the padding.
    assert 0.8 * 10 * 4 * 64 < first.num_positions <= 10 * 4 * 64
    assert all(last_band < first_band for first_band, last_band in zip(first.image_by_time, last.image_by_time, strict=True))
    assert min(first.image_by_time) < first.losses.image < max(first.image_by_time)
    assert notes.validations[60].text < notes.validations[25].text * 1.1
    pairs = zip(state.model.parameters(), state.ema_model.parameters(), strict=True)
    assert not any(torch.equal(weight, average) for weight, average in pairs)


@pytest.fixture(scope="module", params=["adamw", "muon"])
def uneven(request: pytest.FixtureRequest) -> TrainConfig:
    return dataclasses.replace(UNEVEN, optimiser=request.param)


@pytest.fixture(scope="module")
def expected(corpus: Corpus, uneven: TrainConfig) -> list[Step]:
    steps = reference_run(uneven, fresh(corpus, uneven).model, corpus.rows("train"), corpus.rows("validation"))
    norms = [step.gradient_norm for step in steps]
    assert min(norms) < UNEVEN.clip_norm < max(norms), f"some gradients are clipped and some are not: {norms}"
    return steps


def test_every_step_is_the_references(corpus: Corpus, uneven: TrainConfig, expected: list[Step]) -> None:
    start = copied(fresh(corpus, uneven).model)
    notes, state = trained(corpus, uneven)
    assert sorted(notes.losses) == list(range(1, 8))
    for number, step in enumerate(expected, start=1):
        progress = notes.losses[number]
        assert progress.losses == pytest.approx(step.losses, rel=1e-4), number
        assert progress.gradient_norm == pytest.approx(step.gradient_norm, rel=1e-4), number
        assert progress.learning_rate == pytest.approx(step.learning_rate), number
    assert_close(copied(state.model), expected[-1].weights, start)
    assert_close(copied(state.ema_model), expected[-1].ema_model, start)


def test_held_out_rows_are_measured_and_pictures_drawn_by_averaged_weights(
    corpus: Corpus, uneven: TrainConfig, expected: list[Step]
) -> None:
    start = copied(fresh(corpus, uneven).model)
    notes, _ = trained(corpus, uneven)
    assert sorted(notes.validations) == [3, 6, 7]
    for number, losses in notes.validations.items():
        assert losses == pytest.approx(expected[number - 1].validation, rel=1e-4), number
    assert sorted(notes.sampled) == [4, 7]
    for number, weights in notes.sampled.items():
        assert_close(weights, expected[number - 1].ema_model, start)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_restart_gives_the_bits_of_the_uninterrupted_run(corpus: Corpus, tmp_path: Path, optimiser: str) -> None:
    config = changed(optimiser=optimiser)
    whole = trained(corpus, config)

    class Killed(RuntimeError):
        pass

    class Fragile(Notes):
        def log(self, progress: Progress) -> None:
            super().log(progress)
            if progress.step == 6:
                raise Killed

    state = fresh(corpus, config)
    trainer = trainer_of(corpus, config, state)
    with pytest.raises(Killed), RunFolder(folder=tmp_path).resumed(state, ALONE) as checkpointer:
        trainer.run(trainer.schedule(Fragile(checkpointer)), first_step=1)
    again = trained(corpus, config, tmp_path)
    assert sorted(again.notes.losses) == [6, 8, 10, 12], "it goes on from the checkpoint of step 4"
    for step, progress in again.notes.losses.items():
        assert progress.losses == whole.notes.losses[step].losses
    assert again.notes.validations[12] == whole.notes.validations[12]
    assert_equal_bits(again.state.model, whole.state.model)
    assert_equal_bits(again.state.ema_model, whole.state.ema_model)


def test_a_gradient_that_is_not_finite_is_refused(corpus: Corpus) -> None:
    state = fresh(corpus, CONFIG)
    with torch.no_grad():
        state.model.head.weight[0, 0] = float("nan")
    trainer = trainer_of(corpus, CONFIG, state)
    before = [parameter.clone() for parameter in list(state.model.parameters())[:2]]
    with pytest.raises(BadInput, match="step 1 is not finite"):
        trainer.run(trainer.schedule(Notes()), first_step=1)
    for parameter, kept in zip(state.model.parameters(), before, strict=False):
        assert torch.equal(parameter, kept)


def test_two_workers_take_the_references_steps(
    corpus: Corpus, uneven: TrainConfig, expected: list[Step], tmp_path: Path
) -> None:
    # Five rows are not divided evenly.
    torch.multiprocessing.start_processes(one_of_two, (corpus, uneven, tmp_path), nprocs=2, start_method="spawn")
    start = copied(fresh(corpus, uneven).model)
    alone, _ = trained(corpus, uneven)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for number, step in enumerate(expected, start=1):
            losses, norm, num_positions = found["steps"][number - 1]
            assert losses == pytest.approx(step.losses, rel=1e-3), number
            assert norm == pytest.approx(step.gradient_norm, rel=1e-3), number
            # Rows that both workers read would change no mean, and take twice the time.
            assert num_positions == alone.losses[number].num_positions, number
        assert_close(found["weights"], expected[-1].weights, start)
        assert_close(found["ema_model"], expected[-1].ema_model, start)
        assert found["validation"] == pytest.approx(expected[-1].validation, rel=1e-3)
        # Both end after the same step; worker 0, which writes, has the best step's weights.
        assert found["stopped"] == (LAST, BEST)
        assert (found["best_model"] is None) == (rank == 1)
        if rank == 0:
            assert all(torch.equal(weight, found["at_best"][name]) for name, weight in found["best_model"].items())


def one_of_two(rank: int, corpus: Corpus, config: TrainConfig, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    notes, state = trained(corpus, config, world=world)
    stopped = trained(corpus, STOPPING, world=world)
    torch.distributed.destroy_process_group()
    found = {
        "steps": [
            (tuple(progress.losses), progress.gradient_norm, progress.num_positions) for progress in notes.losses.values()
        ],
        "validation": tuple(notes.validations[config.max_steps]),
        "weights": copied(state.model),
        "ema_model": copied(state.ema_model),
        "stopped": (max(stopped.notes.losses), stopped.state.selection.best_step),
        "best_model": copied(stopped.state.best_model) if stopped.state.best_model else None,
        "at_best": stopped.notes.sampled[BEST],
    }
    torch.save(found, folder / f"{rank}.pt")
