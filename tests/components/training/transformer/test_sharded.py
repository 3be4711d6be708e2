"""Weights in shards give what whole ones give: losses, validations, images, checkpoints for any number of workers, a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from safetensors.torch import load_file

from components.runtime.world import World
from components.training.parallel import local_bytes
from components.training.run_folder import RunFolder
from components.training.transformer.config import SelectionConfig, TrainConfig
from components.training.transformer.run import FINISHED
from components.training.transformer.state import new_state
from components.training.transformer.trainer import TransformerTrainer
from components.training.transformer.worker import train
from core.files import read_json, read_json_lines, write_json
from core.png import decode_png
from tests.components.training.conftest import Corpus, changed
from tests.components.training.transformer.test_trainer import Notes

ALONE = World(0, 1, torch.device("cpu"))
# Five rows and eleven held-out ones are not divided evenly, and the weights of step 3 or 6 may be the best ones.
WHOLE = changed(
    batch_rows=5,
    max_steps=9,
    log_every_steps=1,
    validate_every_steps=3,
    sample_every_steps=6,
    checkpoint_every_steps=3,
    optimiser="muon",
    parallel="ddp",
    selection=SelectionConfig(weights="best", figure="image", patience=0, min_improvement=0.0),
)
SHARDED = dataclasses.replace(WHOLE, parallel="fsdp")
CASES = {
    "whole": WHOLE,
    "sharded": SHARDED,
    "small": dataclasses.replace(WHOLE, parallel="hsdp", micro_batch_rows=1, activation_checkpointing="full"),
}
CLOSE = 1e-5


@pytest.fixture(scope="module")
def runs(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each case by two workers, and one alone; "moved" is at step 3 on two, 6 on one, and 9 on two."""
    folder = tmp_path_factory.mktemp("runs")
    trained_by(corpus, WHOLE, folder / "alone", ALONE)
    for until in (3, 9):
        torch.multiprocessing.start_processes(one_of_two, (corpus, folder, until), nprocs=2, start_method="spawn")
        if until == 3:
            write_json(folder / "moved-6.json", moved(corpus, folder, ALONE, 6))
    return folder


def one_of_two(rank: int, corpus: Corpus, folder: Path, until: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet-{until}", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"), local_size=2)
    if until == 3:
        for name, config in CASES.items():
            trained_by(corpus, config, folder / name, world)
        write_json(folder / f"bytes-{rank}.json", {name: kept_bytes(corpus, config, world) for name, config in CASES.items()})
    write_json(folder / f"moved-{until}-{rank}.json", moved(corpus, folder, world, until))
    torch.distributed.destroy_process_group()


def trained_by(corpus: Corpus, config: TrainConfig, folder: Path, world: World) -> None:
    folder.mkdir(exist_ok=True)
    train(corpus.run(config, folder, tracked_in=folder), world)


def moved(corpus: Corpus, folder: Path, world: World, until: int) -> list[list[float]]:
    """Go on to step `until` with sharded weights, where there are several workers; the losses on the way."""
    state = new_state(SHARDED, corpus.rows("train"), world)
    state.selection.max_steps = until
    trainer = TransformerTrainer(SHARDED, state, corpus.rows("train"), corpus.rows("validation"), world)
    (folder / "moved").mkdir(exist_ok=True)
    with RunFolder(folder=folder / "moved").resumed(state, world) as checkpointer:
        notes = Notes(checkpointer)
        trainer.max_steps = until
        trainer.run(trainer.schedule(notes), first_step=checkpointer.first_step)
    return [[step, *progress.losses, progress.gradient_norm] for step, progress in notes.losses.items()]


def kept_bytes(corpus: Corpus, config: TrainConfig, world: World) -> int:
    state = new_state(config, corpus.rows("train"), world)
    assert state.is_sharded == (config.parallel != "ddp")
    return local_bytes([*state.model.parameters(), *state.ema_model.parameters()])


def figures_of(run: Path) -> dict[str, float]:
    """Every loss, gradient and held-out figure, by its step."""
    return {
        f"{entry['step']} {name}": value
        for entry in read_json_lines(run / "metrics.jsonl")
        for name, value in entry.items()
        if name.startswith(("train/loss", "train/gradient", "validation/"))
    }


@pytest.mark.parametrize("case", CASES)
def test_all_figures_are_those_of_a_worker_alone(runs: Path, case: str) -> None:
    expected = figures_of(runs / "alone")
    assert len(expected) > 9 * 3 + 3 * 4
    assert figures_of(runs / case) == pytest.approx(expected, rel=CLOSE)


@pytest.mark.parametrize("case", CASES)
def test_the_same_model_is_handed_on_and_draws_the_same(runs: Path, case: str) -> None:
    expected, found = (load_file(runs / name / "finished" / "model.safetensors") for name in ("alone", case))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert read_json(runs / case / "finished" / "manifest.json")["kind"] == FINISHED
    sheets = [sorted(path.name for path in (runs / name / "samples").iterdir()) for name in ("alone", case)]
    assert sheets[0] == sheets[1] and len(sheets[0]) >= 3
    for name in sheets[0]:
        one, other = (decode_png((runs / of / "samples" / name).read_bytes()).astype(int) for of in ("alone", case))
        assert np.abs(one - other).max() <= 2


def test_a_worker_keeps_its_part(runs: Path) -> None:
    parts = [read_json(runs / f"bytes-{rank}.json") for rank in range(2)]
    assert parts[0]["whole"] == parts[1]["whole"] == parts[0]["sharded"] + parts[1]["sharded"]
    assert 0.45 < parts[0]["sharded"] / parts[0]["whole"] < 0.55
    # One machine: HSDP is FSDP.
    assert parts[0]["small"] == parts[0]["sharded"]


def test_two_workers_then_one_then_two_take_the_same_steps(runs: Path) -> None:
    expected, found = (
        figures_of(runs / "alone"),
        [read_json(runs / name) for name in ("moved-3-0.json", "moved-6.json", "moved-9-0.json")],
    )
    steps = [step for part in found for step in part]
    assert [int(step[0]) for step in steps] == list(range(1, 10))
    for number, total, text, image, _, _, norm in steps:
        wanted = [expected[f"{number} train/{name}"] for name in ("loss", "loss_text", "loss_image", "gradient_norm")]
        assert [total, text, image, norm] == pytest.approx(wanted, rel=CLOSE), number
    assert found[2] == read_json(runs / "moved-9-1.json")
