"""A step in micro-batches has the gradients and the losses of one pass over all its rows, on one worker and on two."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from components.runtime.world import World
from components.training.transformer.config import TrainConfig
from components.training.transformer.state import new_state
from components.training.transformer.step_batch import StepReader
from components.training.transformer.trainer import TransformerTrainer
from core.random import generator
from model.loss import loss_sums
from tests.components.training.conftest import Corpus, changed
from tests.components.training.transformer.reference import UNEVEN

ALONE = World(0, 1, torch.device("cpu"))
STEP = 3
# float32 adds the same numbers in another order.
CLOSE = 1e-6


def of_rows(micro_batch_rows: int, batch_rows: int) -> TrainConfig:
    """Options of which none is neutral."""
    return changed(
        micro_batch_rows=micro_batch_rows,
        batch_rows=batch_rows,
        loss=UNEVEN.loss,
        caption_dropout=0.5,
        resample_latents=True,
        image_first_time_limit=0.3,
    )


def one_pass(corpus: Corpus, batch_rows: int) -> Tensor:
    """The gradients from all rows in one batch, by torch alone."""
    config, rows = of_rows(0, batch_rows), corpus.rows("train")
    model = new_state(config, rows, ALONE).model
    first = (STEP - 1) * batch_rows
    epochs = [
        generator(config.seed, epoch).permutation(rows.num_rows) for epoch in range(1 + (first + batch_rows) // rows.num_rows)
    ]
    batch = rows.batch(
        np.concatenate(epochs)[first : first + batch_rows],
        step=STEP,
        seed=config.seed,
        patch_side=config.model.patch_side,
        caption_dropout=config.caption_dropout,
        image_first_time_limit=config.image_first_time_limit,
        resample_latents=True,
    )
    sums = loss_sums(model, batch, config.seed, STEP, config.loss)
    loss = sums.text / sums.num_tokens + config.image_loss_weight * sums.image / sums.num_values
    return flat(torch.autograd.grad(loss, list(model.parameters())))


def flat(tensors: object) -> Tensor:
    return torch.cat([each.flatten().double() for each in tensors])  # type: ignore[attr-defined]


def taken(trainer: TransformerTrainer) -> tuple[Tensor, Tensor]:
    """Gradients and sums of a step of the trainer."""
    network = trainer.state.model
    network.zero_grad()
    sums = trainer.backward(trainer.reader.step(STEP))
    found = [each.grad for each in network.parameters() if each.grad is not None]
    return flat([each.full_tensor() if isinstance(each, DTensor) else each for each in found]), sums


def apart(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def trainer_of(corpus: Corpus, config: TrainConfig, world: World) -> TransformerTrainer:
    rows, validation = corpus.rows("train"), corpus.rows("validation")
    return TransformerTrainer(config, new_state(config, rows, world), rows, validation, world)


@pytest.mark.parametrize("micro_batch_rows", [1, 2, 3])
def test_micro_batches_add_up_to_one_pass(corpus: Corpus, micro_batch_rows: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    batch_rows = random.Random(seed).randint(4, 9)
    found, sums = taken(trainer_of(corpus, of_rows(micro_batch_rows, batch_rows), ALONE))
    _, at_once = taken(trainer_of(corpus, of_rows(0, batch_rows), ALONE))
    assert apart(found, one_pass(corpus, batch_rows)) < CLOSE
    assert sums.tolist() == pytest.approx(at_once.tolist(), rel=CLOSE)


def test_no_pass_has_more_rows_than_may_be_and_each_row_is_read_once(corpus: Corpus) -> None:
    rows, model = corpus.rows("train"), new_state(of_rows(0, 7), corpus.rows("train"), ALONE).model
    for size in (1, 2, 3):
        for limit in (1, 2, 3, 9):
            readers = [StepReader(of_rows(limit, 7), model, rows, World(rank, size, ALONE.device)) for rank in range(size)]
            steps = [reader.step(STEP).micro_batches for reader in readers]
            assert len({len(each) for each in steps}) == 1, "workers of sharded weights make every pass together"
            sizes = [(len(each.batch.input_ids), each.share) for step in steps for each in step]
            assert all(number <= limit for number, _ in sizes)
            assert sum(number * share for number, share in sizes) == 7
            samples = [number for step in steps for each in step if each.share for number in images_of(each)]
            assert sorted(samples) == sorted(
                images_of(StepReader(of_rows(0, 7), model, rows, ALONE).step(STEP).micro_batches[0])
            )


def images_of(micro_batch) -> list[int]:
    return micro_batch.batch.latents[0].sample_index.tolist()


# Two workers have three rows and two: in passes of one row, the second one lacks a row for the third.
BATCH_ROWS = 5
CASES = [(wrapper, micro_batch_rows) for wrapper in ("replicated", "sharded") for micro_batch_rows in (0, 1, 2)]


def test_two_workers_add_up_to_one_pass(corpus: Corpus, tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(one_of_two, (corpus, tmp_path), nprocs=2, start_method="spawn")
    wanted = one_pass(corpus, BATCH_ROWS)
    _, at_once = taken(trainer_of(corpus, of_rows(0, BATCH_ROWS), ALONE))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for case in CASES:
            gradients, sums = found[case]
            assert apart(gradients, wanted) < CLOSE, (rank, case)
            assert sums.tolist() == pytest.approx(at_once.tolist(), rel=CLOSE), (rank, case)


def one_of_two(rank: int, corpus: Corpus, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world, found = World(rank, 2, torch.device("cpu")), {}
    for wrapper, micro_batch_rows in CASES:
        trainer = trainer_of(corpus, of_rows(micro_batch_rows, BATCH_ROWS), world)
        if wrapper == "sharded":
            fully_shard(trainer.state.model, mesh=init_device_mesh("cpu", (2,)))
            trainer.model = trainer.state.model
        # The first step's exchanges must not stay off, or on, for the next one.
        taken(trainer)
        found[wrapper, micro_batch_rows] = taken(trainer)
    torch.distributed.destroy_process_group()
    torch.save(found, folder / f"{rank}.pt")
