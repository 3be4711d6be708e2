"""A step never waits for the device: nothing of it is read, copied to the host or made of the host's numbers in a step."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from components.runtime.world import World
from components.training.transformer.config import TrainConfig
from components.training.transformer.state import new_state
from components.training.transformer.trainer import TransformerTrainer
from model import transfusion
from model.attention.flex import block_mask
from model.attention.packed import masked_attention
from model.config import DiffusionProcess
from model.diffusion.schedules import alpha_sigma
from tests.components.training.conftest import CONFIG, Corpus, changed

# What asks a device for a value, or for a size that depends on values; and `lift_fresh`, a tensor made of Python's numbers,
# which travels to a device from memory that is not pinned.
WAITING = {"_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "lift_fresh"}


class Waits(TorchDispatchMode):
    """Notes what would wait, of what this thread does; on a GPU or as if there were one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").partition(".")[0]
        is_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1]
        )
        if name in WAITING or "unique" in name or is_mask or (name == "repeat_interleave" and len(args) < 3):
            self.found.append(name)
        result = func(*args, **(kwargs or {}))
        is_moved = name in ("_to_copy", "copy_") and isinstance(result, torch.Tensor) and result.device.type == "cpu"
        if is_moved and any(isinstance(each, torch.Tensor) and each.is_cuda for each in args):
            self.found.append("copy to the host")
        return result


def as_on_a_gpu(kv_start: torch.Tensor, kv_end: torch.Tensor, flex_backend: str) -> Any:
    """Attention that a CPU can do, and what a GPU's needs beside it, whatever its kernel."""
    block_mask(kv_start, kv_end)
    return masked_attention(kv_start, kv_end)


def trainer_of(corpus: Corpus, config: TrainConfig, device: str = "cpu") -> TransformerTrainer:
    rows, validation, world = corpus.rows("train"), corpus.rows("validation"), World(0, 1, torch.device(device))
    return TransformerTrainer(config, new_state(config, rows, world), rows, validation, world)


def test_what_would_wait_is_noticed() -> None:
    values = torch.arange(4.0)
    with Waits() as waits:
        float(values.sum())
        values[values > 1]
        values.nonzero()
        values.unique()
        torch.tensor([1.0, 2.0])
        values[torch.arange(2)]
    assert waits.found[0] == "_local_scalar_dense" and {"index", "nonzero", "lift_fresh"} <= set(waits.found)
    assert sum("unique" in each for each in waits.found) == 1 and waits.found.count("index") == 1


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize("experts", ["shared", "full"])
@pytest.mark.parametrize("micro_batch_rows", [0, 1])
def test_no_step_waits(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, optimiser: str, experts: str, micro_batch_rows: int
) -> None:
    monkeypatch.setattr(transfusion, "packed_attention", as_on_a_gpu)
    model = dataclasses.replace(CONFIG.model, experts=experts)
    config = changed(optimiser=optimiser, micro_batch_rows=micro_batch_rows, max_steps=4, warmup_steps=2, model=model)
    # What is made once is made in the first steps.
    trainer_of(corpus, config).run([], first_step=3)
    trainer = trainer_of(corpus, config)
    with Waits() as waits:
        trainer.run([], first_step=1)
    assert waits.found == []


def test_no_schedule_waits() -> None:
    time = torch.rand(8)
    for process in (DiffusionProcess("flow"), DiffusionProcess("epsilon"), DiffusionProcess("v")):
        with Waits() as waits:
            alpha_sigma(process, time)
        assert waits.found == [], process


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_no_step_waits_on_a_gpu(corpus: Corpus, optimiser: str) -> None:
    trainer = trainer_of(corpus, changed(optimiser=optimiser, max_steps=8, compile="off", precision="bfloat16"), "cuda")
    trainer.max_steps = 4
    trainer.run([], first_step=1)
    trainer.max_steps = 8
    torch.cuda.set_sync_debug_mode("error")
    try:
        with trainer.batches:
            for step in range(5, 9):
                trainer.late_numbers.add(step, trainer.train_step(step))
                trainer.judged(step, num_kept=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
