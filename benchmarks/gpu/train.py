"""Tokens a second of a training step, and its share of the card's arithmetic.

The step is forward, backward and AdamW's, under bfloat16 autocast with float32 weights, at packed rows of one length. Every
step has a batch of its own: a layout that compiled anew would show. Noise is drawn beforehand, and timed by itself, because in
training the CPU draws it while the GPU is busy with the step before.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch._dynamo.utils import counters

from benchmarks.gpu.clock import Result, attempt, seconds_of_each
from benchmarks.gpu.work import SPECIAL_IDS, Work, configuration, make_batch
from model.batch import Batch
from model.compiled import compile_for_training
from model.config import DiffusionProcess, ModelConfig
from model.diffusion.noise import TimedNoise
from model.flops import step_flops
from model.loss import loss_sums_at, training_noise
from model.loss_options import PLAIN
from model.transfusion import Transfusion

LEARNING_RATE = 1e-4
# Lambda of the paper, arXiv 2408.11039, Sec. 4.1.
IMAGE_WEIGHT = 5.0
# Bytes that the backward pass keeps of one block for each number of the stream, uncompiled: 48 (the stream twice in float32; in
# bfloat16 its norms, queries, keys and values before and after turning, what attention made, and the feed-forward's three
# parts), and a third of that for what comes and goes.
BYTES_KEPT = 64
# Parameter, gradient and two moments.
BYTES_PER_PARAMETER = 16


class Given(NamedTuple):
    """One step's batch on the device, its noise, and the CPU's seconds for drawing that.

    num_tokens: text tokens and patches. num_positions: the same and markers.
    """

    batch: Batch
    noises: list[TimedNoise]
    draw_seconds: float
    num_tokens: int
    num_positions: int


class Trained(NamedTuple):
    """A model and what moves its weights."""

    model: Transfusion
    optimiser: torch.optim.AdamW


def train(work: Work, preset: str, device: torch.device) -> Iterator[Result]:
    """tokens/s uncompiled and compiled, with as many rows as fit."""
    torch.set_float32_matmul_precision("high")
    config = configuration(work, preset)
    rows = rows_that_fit(work, config, device)
    while True:
        trained = new_trained(config, device)
        given = [prepare(work, config.process, rows, seed, device) for seed in range(work.warm_up + work.repeats)]
        eager = attempt(lambda: measure(work, trained, given, device))  # noqa: B023
        if "OutOfMemoryError" not in eager.get("error", "") or rows == 1:
            break
        del trained, given
        torch.cuda.empty_cache()
        rows //= 2
    yield {"parameters": num_parameters(config), "rows": rows, "row_length": work.row_length}
    yield {"noise_drawn_on_cpu_seconds": statistics.median(each.draw_seconds for each in given)}
    yield {"eager": eager}
    compile_for_training(trained.model, backend=work.compiler)
    yield {"compiled": attempt(lambda: measure(work, trained, given, device))}


def new_trained(config: ModelConfig, device: torch.device) -> Trained:
    torch.manual_seed(0)
    model = Transfusion(config).to(device)
    return Trained(model, torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True))


def measure(work: Work, trained: Trained, given: list[Given], device: torch.device) -> Result:
    """The median over steps of their rates; the first `warm_up` steps do not count."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    losses = [take_step(trained, each, device).item() for each in given[: work.warm_up]]
    warm_up_seconds = time.perf_counter() - start
    graphs = counters["stats"]["unique_graphs"]
    measured = given[work.warm_up :]
    kept: list[torch.Tensor] = []
    seconds = seconds_of_each(lambda at: kept.append(take_step(trained, measured[at], device)), len(measured), device)
    losses += [loss.item() for loss in kept]
    if not all(map(math.isfinite, losses)):
        raise RuntimeError(f"losses {losses} are not all finite")
    flops = [step_flops(trained.model, each.batch, each.num_positions) for each in measured]
    return {
        "tokens_per_second": statistics.median(each.num_tokens / s for each, s in zip(measured, seconds, strict=True)),
        "flops_per_second": statistics.median(amount / s for amount, s in zip(flops, seconds, strict=True)),
        "seconds": seconds,
        "warm_up_seconds": warm_up_seconds,
        "graphs_compiled_while_measured": counters["stats"]["unique_graphs"] - graphs,
        "peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
        "losses": losses,
    }


def take_step(trained: Trained, given: Given, device: torch.device) -> torch.Tensor:
    """Forward, backward, and the optimiser's step; the loss."""
    with torch.autocast(device.type, torch.bfloat16):
        sums = loss_sums_at(trained.model, given.batch, given.noises, PLAIN)
    loss = sums.text / max(sums.num_tokens, 1) + IMAGE_WEIGHT * sums.image / max(sums.num_values, 1)
    loss.backward()
    trained.optimiser.step()
    trained.optimiser.zero_grad(set_to_none=True)
    return loss.detach()


def prepare(work: Work, process: DiffusionProcess, rows: int, seed: int, device: torch.device) -> Given:
    """A batch and its noise, made on the CPU and moved."""
    batch, num_tokens = make_batch(work, rows, seed)
    start = time.perf_counter()
    drawn = [training_noise(process, part, number, 0, seed, PLAIN) for number, part in enumerate(batch.latents)]
    draw_seconds = time.perf_counter() - start
    moved = [TimedNoise(*(part.to(device) for part in each)) for each in drawn]
    num_positions = int(batch.used(SPECIAL_IDS["pad"]).sum())
    return Given(batch.to(device), moved, draw_seconds, num_tokens, num_positions)


def rows_that_fit(work: Work, config: ModelConfig, device: torch.device) -> int:
    """A power of two, at most work.max_rows, for which the memory should do."""
    if device.type != "cuda":
        return work.max_rows
    memory = 0.8 * torch.cuda.get_device_properties(device).total_memory - 2 * 2**30
    memory -= BYTES_PER_PARAMETER * num_parameters(config)
    rows = int(memory / (BYTES_KEPT * config.hidden_size * config.num_hidden_layers * work.row_length))
    return min(work.max_rows, 2 ** (max(rows, 1).bit_length() - 1))


def num_parameters(config: ModelConfig) -> int:
    """Counted without making them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Transfusion(config).parameters())
