"""A run that is cut off goes on bit for bit, with micro-batches, copies and shards; and nearly so under another parallelism."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from safetensors.torch import load_file

from components.runtime.world import World
from components.training.checkpoint_folders import folder_of
from components.training.run_folder import RunFolder
from components.training.transformer.config import SelectionConfig, TrainConfig
from components.training.transformer.state import new_state
from components.training.transformer.trainer import Progress
from components.training.whole_network import write_network
from tests.components.training.conftest import Corpus, changed
from tests.components.training.transformer.test_trainer import Notes, trained, trainer_of

NUM_STEPS, KEPT, KILLED = 6, 3, 5
# What a run has that needs more than the last step's weights: the best ones, both optimisers' moments.
CONFIG = changed(
    max_steps=NUM_STEPS,
    optimiser="muon",
    micro_batch_rows=1,
    checkpoint_every_steps=KEPT,
    log_every_steps=1,
    validate_every_steps=2,
    sample_every_steps=100,
    selection=SelectionConfig(weights="best", figure="image", patience=0, min_improvement=0.0),
)
LAYOUTS = {
    "ddp": dataclasses.replace(CONFIG, parallel="ddp"),
    "fsdp": dataclasses.replace(CONFIG, parallel="fsdp", activation_checkpointing="full"),
}
OTHER = {"ddp": "fsdp", "fsdp": "ddp"}


class Killed(RuntimeError):
    """What ends all workers in the middle of a run."""


class Fragile(Notes):
    """Ends the process after the step KILLED."""

    def log(self, progress: Progress) -> None:
        super().log(progress)
        if progress.step == KILLED:
            raise Killed


def cut_off(corpus: Corpus, config: TrainConfig, folder: Path, world: World) -> None:
    """The beginning of a run, with a checkpoint after KEPT."""
    state = new_state(config, corpus.rows("train"), world)
    trainer = trainer_of(corpus, config, state, world)
    with RunFolder(folder=folder).resumed(state, world) as checkpointer:
        trainer.run(trainer.schedule(Fragile(checkpointer)), first_step=1)


def one_of_two(rank: int, corpus: Corpus, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world, found = World(rank, 2, torch.device("cpu")), dict[str, dict[str, list[float]]]()
    for name, config in LAYOUTS.items():
        run, other = folder / name, folder / f"{name}-elsewhere"
        if rank == 0:
            run.mkdir()
        whole = trained(corpus, config, world=world)
        with pytest.raises(Killed):
            cut_off(corpus, config, run, world)
        if rank == 0:
            shutil.copytree(run, other)
        torch.distributed.barrier()
        again = trained(corpus, config, run, world)
        elsewhere = trained(corpus, LAYOUTS[OTHER[name]], other, world)
        found[name] = {key: losses(each.notes) for key, each in (("whole", whole), ("again", again), ("elsewhere", elsewhere))}
    torch.distributed.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(found))


def losses(notes: Notes) -> list[float]:
    """Of each step, JSON's doubles being exact."""
    return [progress.losses.total for _, progress in sorted(notes.losses.items())]


class Ended(NamedTuple):
    folder: Path
    found: list[dict[str, dict[str, list[float]]]]


@pytest.fixture(scope="module")
def ended(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("resumed")
    torch.multiprocessing.start_processes(one_of_two, (corpus, folder), nprocs=2, start_method="spawn")
    return Ended(folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)])


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_run_that_was_cut_off_takes_the_same_steps(ended: Ended, layout: str) -> None:
    for found in ended.found:
        assert len(found[layout]["whole"]) == NUM_STEPS
        assert found[layout]["again"] == found[layout]["whole"][KEPT:]


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_run_goes_on_under_another_parallelism(ended: Ended, layout: str) -> None:
    for found in ended.found:
        assert found[layout]["elsewhere"] == pytest.approx(found[layout]["whole"][KEPT:], rel=1e-5)


def test_a_finished_model_is_the_same_from_shards_and_from_copies(ended: Ended, tmp_path: Path) -> None:
    for layout in LAYOUTS:
        write_network(folder_of(ended.folder / layout / "run", NUM_STEPS), "best_model", tmp_path / layout)
    copies, shards = (load_file(tmp_path / layout) for layout in LAYOUTS)
    assert copies.keys() == shards.keys()
    for name, weight in copies.items():
        torch.testing.assert_close(shards[name], weight, rtol=1e-3, atol=1e-4, msg=name)
