"""Tokens a second that transfusion-pytorch trains on, given the same documents and a hidden size as large.

Where it is importable; its fused attention and its plain one are both tried. It pads a batch to its longest document, so it is
also given documents of one length, which is the best that can happen to it.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import random
import statistics
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.gpu.clock import Result, attempt, seconds_of_each
from benchmarks.gpu.production import LEARNING_RATE
from benchmarks.gpu.work import CHANNELS, PATCH_SIDE, Plan, Work, make_document, num_tokens, plan_row
from model.config import PRESETS, Preset

PACKAGE = "transfusion_pytorch"


def peer(work: Work, preset: str, device: torch.device) -> Iterator[Result]:
    """tokens/s of the same documents and of documents of one length, with both of its kinds of attention."""
    if importlib.util.find_spec(PACKAGE) is None:
        yield {"missing": f"{PACKAGE} is not importable; put it and what it needs on PYTHONPATH"}
        return
    try:
        yield {"version": version("transfusion-pytorch")}
    except PackageNotFoundError:
        yield {"version": None}
    torch.set_float32_matmul_precision("high")
    num_patches = math.prod(work.grid)
    equal: list[Plan] = [(num_patches, work.grid)] * work.peer_documents
    for name, flex in {"flex": True, "plain": False}.items():
        # Its flex attention is for CUDA alone.
        if flex and device.type != "cuda":
            continue
        yield {name: attempt(lambda: measure(work, preset, device, flex=flex, same_length=None))}  # noqa: B023
        yield {f"{name}_equal_lengths": attempt(lambda: measure(work, preset, device, flex=flex, same_length=equal))}  # noqa: B023


def measure(work: Work, preset: str, device: torch.device, *, flex: bool, same_length: list[Plan] | None) -> Result:
    """The median over steps of their rates, with as many documents as fit. same_length: instead of the mixed documents."""
    torch.manual_seed(0)
    model = new_model(work, preset, flex=flex).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    steps = [same_length or mixed_documents(work, seed) for seed in range(work.warm_up + work.repeats)]
    number = work.peer_documents
    while True:
        try:
            return {
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "documents": number,
                **_measure(work, model, optimiser, [plans[:number] for plans in steps], device),
            }
        except torch.OutOfMemoryError:
            if number == 1:
                raise
        number //= 2
        optimiser.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()


def _measure(work: Work, model: Any, optimiser: torch.optim.Optimizer, steps: list[list[Plan]], device: torch.device) -> Result:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    generator = torch.Generator().manual_seed(0)
    given = [
        [[part.to(device) for part in make_document(plan, work.vocab_size, generator)] for plan in plans] for plans in steps
    ]
    for documents in given[: work.warm_up]:
        take_step(model, optimiser, documents, device)
    measured, plans = given[work.warm_up :], steps[work.warm_up :]
    losses: list[Tensor] = []
    seconds = seconds_of_each(
        lambda at: losses.append(take_step(model, optimiser, measured[at], device)), len(measured), device
    )
    if not all(math.isfinite(loss.item()) for loss in losses):
        raise RuntimeError(f"losses {[loss.item() for loss in losses]} are not all finite")
    counts = [sum(num_tokens(plan) for plan in each) for each in plans]
    longest = [len(each) * max(num_tokens(plan) for plan in each) for each in plans]
    return {
        "tokens_per_second": statistics.median(count / s for count, s in zip(counts, seconds, strict=True)),
        "not_padding": sum(counts) / sum(longest),
        "seconds": seconds,
        "peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
    }


def take_step(model: Any, optimiser: torch.optim.Optimizer, documents: list[list[Tensor]], device: torch.device) -> Tensor:
    """Forward, backward, and the optimiser's step; the loss."""
    with torch.autocast(device.type, torch.bfloat16):
        loss = model(documents)
    loss.backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss.detach()


def mixed_documents(work: Work, seed: int) -> list[Plan]:
    """The documents that rows are packed from, as many as a step of the peer's takes."""
    rng = random.Random(seed)
    plans: list[Plan] = []
    while len(plans) < work.peer_documents:
        plans += plan_row(rng, work.row_length, work.grid)
    return plans[: work.peer_documents]


def new_model(work: Work, preset: str, *, flex: bool) -> Any:
    """Its model as wide and as deep as ours, with its own defaults."""
    size = PRESETS[cast(Preset, preset)]
    return importlib.import_module(PACKAGE).Transfusion(
        num_text_tokens=work.vocab_size,
        dim_latent=CHANNELS * PATCH_SIDE**2,
        modality_default_shape=work.grid,
        # As in its own image examples: patches of an image share one rotary position, and only this tells them apart.
        add_pos_emb=True,
        modality_num_dim=2,
        transformer={
            "dim": size.hidden_size,
            "depth": size.num_hidden_layers,
            "dim_head": size.hidden_size // size.num_attention_heads,
            "heads": size.num_attention_heads,
            "use_flex_attn": flex,
        },
    )
