"""Our side of the comparison: the model, the loss and the generation loop as they are used.

Legend: m x k times k x n.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from typing import NamedTuple

import torch

from benchmarks.machine import matmul_rate
from benchmarks.packed_batch import packed_batch
from benchmarks.peer.measure import autocast, evaluated_rows, work_of_command_line
from benchmarks.peer.work import LEARNING_RATE, Precision, Size, Work, count_positions, make_documents, make_prompts
from benchmarks.peer.worker import Answer, serve
from components.runtime.allocator import keep_freed_memory
from model.batch import Batch
from model.compiled import compile_for_training
from model.config import Modality, ModelConfig
from model.flops import step_flops
from model.generation.eager import TorchEngine
from model.generation.requests import Request, SamplingOptions
from model.generation.sampling import generate
from model.loss import loss_sums
from model.loss_options import PLAIN
from model.transfusion import Transfusion

# Lambda of the paper, arXiv 2408.11039, Sec. 4.1.
IMAGE_WEIGHT = 5.0
# Columns that matrix products take at once.
TILE = 32
# Markers; the words of the documents begin behind them.
PAD, BOS, EOS, BEGIN_IMAGE, END_IMAGE = range(5)


class Trained(NamedTuple):
    """A model and what moves its weights."""

    model: Transfusion
    optimiser: torch.optim.AdamW


class Ours:
    """Our models and optimisers, kept between measurements: of the peer's width, and of the peer's parameter count."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.trained = {"same_width": new_trained(config_of(work.size), compiled=work.compiled)}

    def describe(self) -> Answer:
        """What is run, in words and numbers."""
        config, compiled = self.trained["same_width"].model.config, self.work.compiled
        return {
            "parameters": num_parameters(config),
            "settings": {
                "model": config.to_dict(),
                "optimiser": "torch.optim.AdamW(fused=True)",
                "training_batch": "packed and laid out inside the measured time",
                "image": "generate, Euler, guidance as paired rows",
                "text": "generate, temperature 0",
                "generation_bf16": "weights in bfloat16; cache and attention in float32, as the engine has it on a CPU",
                "training_memory": "freed memory is kept for the next step",
                "training_compiled": "block by block, torch.compile, before the measured time" if compiled else "no",
                "generation_compiled": "the same, and weights in oneDNN's order" if compiled else "no",
            },
        }

    def same_params(self, parameters: int) -> Answer:
        """Make the model that is as large as the peer's."""
        config = widened(self.work.size, parameters)
        self.trained["same_params"] = new_trained(config, compiled=self.work.compiled)
        return {
            "parameters": num_parameters(config),
            "width": config.hidden_size,
            "intermediate_size": config.intermediate_size,
        }

    def train(self, documents: str, precision: Precision, steps: int, model: str = "same_width") -> Answer:
        """Optimiser steps on the documents; from a list of tensors to the moved weights."""
        keep_freed_memory()  # as every training worker does
        given = make_documents(self.work, documents)
        trained = self.trained[model]
        trained.model.train()
        loss, batch = torch.zeros(()), None
        start = time.perf_counter()
        for step in range(steps):
            batch = packed_batch(given, trained.model.config, self.work.row_length[documents])
            loss = train_step(trained, batch, precision, step)
        seconds = time.perf_counter() - start
        assert batch is not None and math.isfinite(loss.item())
        positions = count_positions(self.work, documents)
        flops = step_flops(trained.model, batch, positions)
        return {"seconds": seconds, "tokens": steps * positions, "flops": steps * flops}

    def image(self, precision: Precision, warm_up: bool = False) -> Answer:
        """One image for every prompt."""
        work = self.work.image
        prompts = make_prompts(self.work, work.num_prompts, work.prompt_length)
        ends = torch.tensor([[BOS], [BEGIN_IMAGE]])
        requests = [
            Request((torch.cat([ends[0], prompt, ends[1]]),), index, max_new_tokens=0, max_latents=1, shapes=(work.grid,))
            for index, prompt in enumerate(prompts)
        ]
        options = SamplingOptions(
            num_steps=2 if warm_up else work.evaluations, guidance_scale=work.guidance_scale, solver="euler"
        )
        engine = self._engine(precision)
        start = time.perf_counter()
        with evaluated_rows(engine.model.transformer, work.grid[0] * work.grid[1]) as rows:
            completions = generate(engine, requests, options, num_slots=work.num_prompts)
        seconds = time.perf_counter() - start
        images = [image for completion in completions for image in completion.images]
        assert len(images) == work.num_prompts and all(bool(image.isfinite().all()) for image in images)
        return {"seconds": seconds, "images": len(images), "rows_evaluated": sum(rows)}

    def text(self, precision: Precision, warm_up: bool = False) -> Answer:
        """Greedy tokens after every prompt."""
        work = self.work.text
        model = self.trained["same_width"].model
        with torch.no_grad():
            # Every row is to run to its end, and a logit of 0 is never the largest.
            model.head.weight[EOS] = 0
        new_tokens = 2 if warm_up else work.new_tokens
        # One of the prompt's tokens makes room for the BOS, so that both sides read as many.
        prompts = make_prompts(self.work, work.num_rows, work.prompt_length)[:, 1:]
        requests = [
            Request((torch.cat([torch.tensor([BOS]), prompt]),), 0, max_new_tokens=new_tokens, max_latents=0, shapes=((),))
            for prompt in prompts
        ]
        options = SamplingOptions(num_steps=1, guidance_scale=1.0, temperature=0.0)
        engine = self._engine(precision)
        start = time.perf_counter()
        completions = generate(engine, requests, options, num_slots=work.num_rows)
        seconds = time.perf_counter() - start
        tokens = sum(len(completion.text) for completion in completions)
        assert tokens == work.num_rows * new_tokens, "a row ended early"
        return {"seconds": seconds, "tokens": tokens}

    def matmul(self, layers: bool = False) -> Answer:
        """The rate of a bfloat16 product of squares; with `layers`, of the model's own linear layers instead."""
        if not layers:
            side = self.work.square
            return {"seconds": 1.0, "flops": matmul_rate(side, side, side, torch.bfloat16, seconds=self.work.matmul_seconds)}
        config = self.trained["same_width"].model.config
        rows = len(self.work.documents["equal"]) * self.work.row_length["equal"]
        shapes = {
            "qkv": (config.hidden_size, 3 * config.hidden_size),
            "out": (config.hidden_size, config.hidden_size),
            "gate_up": (config.hidden_size, 2 * config.intermediate_size),
            "down": (config.intermediate_size, config.hidden_size),
        }
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
        return {
            f"{name} {rows}x{k}x{n}": {
                precision: matmul_rate(rows, k, n, dtype, seconds=self.work.matmul_seconds)
                for precision, dtype in dtypes.items()
            }
            for name, (k, n) in shapes.items()
        }

    def _engine(self, precision: Precision) -> TorchEngine:
        """Generation runs in the precision of the weights."""
        model = self.trained["same_width"].model
        given = model if precision == "fp32" else copy.deepcopy(model).bfloat16()
        return TorchEngine(given, mode="compiled" if self.work.compiled else "eager")


def config_of(size: Size) -> ModelConfig:
    """Our model of that size: the feed-forward is 8/3 as wide as the stream, up to whole tiles of 32."""
    return ModelConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        num_hidden_layers=size.num_hidden_layers,
        num_attention_heads=size.num_attention_heads,
        intermediate_size=math.ceil(size.hidden_size * 8 / 3 / TILE) * TILE,
        modalities=(
            Modality(
                name="image",
                channels=size.patch_dim,
                patch_size=(1, 1),
                patch_layers="linear",
                unet_channels=(),
                begin_token_id=BEGIN_IMAGE,
                end_token_id=END_IMAGE,
            ),
        ),
        prediction_type="flow",
        zero_terminal_snr=False,
        experts="shared",
        qk_norm=False,
        max_position_embeddings=2048,
        rope_theta=10_000.0,
        rms_norm_eps=1e-5,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )


def widened(size: Size, parameters: int) -> ModelConfig:
    """At least so many parameters, and few more: the least width that keeps whole heads, then the least feed-forward."""
    config = config_of(size)
    while num_parameters(config) < parameters:
        config = config_of(size._replace(hidden_size=config.hidden_size + 16 * size.num_attention_heads))
    if config.hidden_size == size.hidden_size:
        return config
    while num_parameters(narrower := replace(config, intermediate_size=config.intermediate_size - TILE)) >= parameters:
        config = narrower
    return config


def num_parameters(config: ModelConfig) -> int:
    """Counted without making them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Transfusion(config).parameters())


def new_trained(config: ModelConfig, *, compiled: bool = False) -> Trained:
    torch.manual_seed(0)
    model = Transfusion(config)
    if compiled:
        # Each precision and layout of rows is compiled for itself, and torch would give up after eight.
        torch._dynamo.config.recompile_limit = 64
        compile_for_training(model)
    return Trained(model, torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True))


def train_step(trained: Trained, batch: Batch, precision: Precision, step: int) -> torch.Tensor:
    """Forward, backward, and the optimiser's step; the loss."""
    with autocast(precision):
        sums = loss_sums(trained.model, batch, 0, step, PLAIN)
        loss = sums.text / max(sums.num_tokens, 1) + IMAGE_WEIGHT * sums.image / max(sums.num_values, 1)
    loss.backward()
    trained.optimiser.step()
    trained.optimiser.zero_grad(set_to_none=True)
    return loss.detach()


def main() -> None:
    side = Ours(work_of_command_line(__doc__))
    names = ("describe", "same_params", "train", "image", "text", "matmul")
    serve({name: getattr(side, name) for name in names})


if __name__ == "__main__":
    main()
