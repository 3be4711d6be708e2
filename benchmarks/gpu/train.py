"""Tokens a second of the production's training, and its share of the card's arithmetic.

What runs is `TransformerTrainer.run`: reading, noise, forward and backward under bfloat16 autocast, clipping, fused AdamW and
the moving average, at packed rows of one length. Its own reports are what is measured, each of a few steps; the first, in which
everything is compiled, does not count. Held-out losses are measured at the end, where they may compile nothing either.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch._dynamo.utils import counters

from benchmarks.gpu.clock import Result, attempt, wait_for
from benchmarks.gpu.production import MadeUpRows, new_trainer, train_config
from benchmarks.gpu.work import Work, configuration
from components.training.trainer import Every
from components.training.transformer.reports import Progress
from model.config import ModelConfig
from model.transfusion import Transfusion

# Bytes that the backward pass keeps of one block for each number of the hidden states, uncompiled: 48 (these twice in float32;
# in bfloat16 its norms, queries, keys and values before and after turning, what attention made, and the feed-forward's
# three parts), and a third of that for what comes and goes.
BYTES_KEPT = 64
# Parameter, gradient, two moments, and the average.
BYTES_PER_PARAMETER = 20


def train(work: Work, preset: str, device: torch.device) -> Iterator[Result]:
    """tokens/s uncompiled, compiled, and compiled with hidden states in bfloat16, with as many rows as fit."""
    torch.set_float32_matmul_precision("high")
    config = configuration(work, preset)
    num_rows = rows_that_fit(work, config, device)
    while True:
        rows = MadeUpRows(work, num_rows)
        eager = attempt(lambda: measure(work, preset, rows, device, compiler=None))  # noqa: B023
        if "OutOfMemoryError" not in eager.get("error", "") or num_rows == 1:
            break
        del rows
        torch.cuda.empty_cache()
        num_rows //= 2
    yield {"parameters": num_parameters(config), "rows": num_rows, "row_length": work.row_length}
    # The compiled one first of what is left, because it is the figure.
    yield {"compiled": attempt(lambda: measure(work, preset, rows, device, compiler=work.compiler))}
    yield {"eager": eager}
    found = attempt(lambda: measure(work, preset, rows, device, compiler=work.compiler, hidden_states="bfloat16"))
    yield {"compiled_bfloat16_hidden_states": found}


def measure(
    work: Work, preset: str, rows: MadeUpRows, device: torch.device, *, compiler: str | None, hidden_states: Any = "float32"
) -> Result:
    """The median over reports of their rates; the first one does not count."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    num_rows = rows.num_rows // len(rows.made)
    config = train_config(
        preset,
        batch_rows=num_rows,
        max_steps=work.warm_up + work.repeats,
        report_every_steps=work.warm_up,
        hidden_states=hidden_states,
    )
    trainer = new_trainer(config, rows, rows, device, compiler=compiler)
    reports: list[Progress] = []
    graphs: list[int] = []

    def report(step: int) -> None:
        reports.append(trainer.progress(step))
        graphs.append(counters["stats"]["unique_graphs"])

    start = time.perf_counter()
    trainer.run([Every(work.warm_up, report)], first_step=1)
    wait_for(device)
    seconds = time.perf_counter() - start
    if not all(math.isfinite(each.losses.total) for each in reports):
        raise RuntimeError(f"losses {[each.losses.total for each in reports]} are not all finite")
    held_out = trainer.held_out_losses().total
    measured = reports[1:]
    return {
        "tokens_per_second": rows.tokens_a_position()
        * statistics.median(each.num_positions / each.elapsed_s for each in measured),
        "flops_per_second": statistics.median(each.flops / each.elapsed_s for each in measured),
        "seconds_a_step": [each.elapsed_s / each.num_steps for each in measured],
        "first_report_seconds": reports[0].elapsed_s,
        "seconds_in_all": seconds,
        "read_on_cpu_seconds": seconds_of_reading(trainer),
        "graphs_compiled_while_measured": graphs[-1] - graphs[0],
        "graphs_compiled_by_validation": counters["stats"]["unique_graphs"] - graphs[-1],
        "peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
        "losses": [each.losses.total for each in reports],
        "held_out_loss": held_out,
    }


def seconds_of_reading(trainer: Any) -> float:
    """A step's batch and noise, made on the CPU."""
    start = time.perf_counter()
    trainer.reader.step(1)
    return time.perf_counter() - start


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
