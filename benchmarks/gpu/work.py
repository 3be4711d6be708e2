"""A GPU's work: packed rows of mixed documents, text to images one to one; the same documents for the peer.

Torch and numpy alone beside the standard library, like all of benchmarks/gpu, so that a bare machine with a GPU can run them.

Legend: n text ids, Y/X patches along the axes of an image, W numbers in a patch.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.rows import batch_of
from model.batch import Batch
from model.config import ModelConfig, image_modality, model_config

# Ids below are markers; words begin behind them.
FIRST_WORD = 8
SPECIAL_IDS = {"pad": 0, "bos": 1, "eos": 2}
BEGIN_IMAGE, END_IMAGE = 3, 4
CHANNELS, PATCH_SIDE = 8, 2


class Sampling(NamedTuple):
    """Text -> image. batch: prompts at once, each guided by a second row."""

    batch: int
    prompt_length: int
    num_steps: int
    guidance_scale: float
    modes: tuple[str, ...]


class Parity(NamedTuple):
    """num_layouts: random ones of [rows, length]. timed_rows: of a row's full length, for the times."""

    num_layouts: int
    rows: int
    length: int
    num_attention_heads: int
    head_dim: int
    timed_rows: int


class Resumed(NamedTuple):
    """A training that is killed. checkpoint_every, kill_after: in steps."""

    steps: int
    batch_rows: int
    checkpoint_every: int
    kill_after: int


class Work(NamedTuple):
    """presets: of model/config.py. max_rows: most rows of a training step. peer_documents: of a step of the peer's.

    repeats: measurements of each figure, after warm_up that do not count; a report of training is of warm_up steps.
    compiler: backend of torch.compile.
    matmul_side: of the square matrices whose product is the machine's measured rate.
    """

    presets: tuple[str, ...]
    vocab_size: int
    row_length: int
    grid: tuple[int, int]
    max_rows: int
    peer_documents: int
    repeats: int
    warm_up: int
    compiler: str
    matmul_side: int
    sampling: Sampling
    parity: Parity
    resumed: Resumed


FULL = Work(
    presets=("0.16b", "0.37b", "0.76b"),
    vocab_size=32768,
    row_length=4096,
    grid=(16, 16),
    max_rows=16,
    peer_documents=64,
    repeats=12,
    warm_up=4,
    compiler="inductor",
    matmul_side=8192,
    sampling=Sampling(16, prompt_length=32, num_steps=50, guidance_scale=3.0, modes=("eager", "compiled", "graphs")),
    parity=Parity(num_layouts=200, rows=2, length=1024, num_attention_heads=12, head_dim=64, timed_rows=4),
    resumed=Resumed(steps=200, batch_rows=64, checkpoint_every=50, kill_after=120),
)
# The same on a CPU in seconds: whether it runs, not how fast.
TOY = Work(
    presets=("tiny",),
    vocab_size=256,
    row_length=160,
    grid=(4, 4),
    max_rows=2,
    peer_documents=4,
    repeats=2,
    warm_up=1,
    compiler="aot_eager",
    matmul_side=256,
    sampling=Sampling(2, prompt_length=6, num_steps=3, guidance_scale=3.0, modes=("eager",)),
    parity=Parity(num_layouts=5, rows=2, length=200, num_attention_heads=2, head_dim=16, timed_rows=1),
    resumed=Resumed(steps=4, batch_rows=2, checkpoint_every=2, kill_after=3),
)

# A document as it is planned: numbers of text tokens, and the grids of images.
Plan = tuple[int | tuple[int, int], ...]


def configuration(work: Work, preset: str) -> ModelConfig:
    """Our model of a preset, for images of 2 x 2 x 8 numbers a patch."""
    images = image_modality(
        channels=CHANNELS,
        patch_side=PATCH_SIDE,
        patch_layers="linear",
        unet_channels=(),
        begin_token_id=BEGIN_IMAGE,
        end_token_id=END_IMAGE,
    )
    return model_config(
        preset,
        vocab_size=work.vocab_size,
        modalities=(images,),
        prediction_type="flow",
        max_position_embeddings=work.row_length,
        special_ids=SPECIAL_IDS,
    )


def plan_row(rng: random.Random, room: int, grid: tuple[int, int]) -> list[Plan]:
    """Documents that fill a row: a caption before or after its image, or two images between three texts."""
    num_patches = math.prod(grid)
    plans: list[Plan] = []
    while True:
        text = lambda: rng.randint(num_patches // 2, num_patches * 3 // 2)  # noqa: E731
        part = text() * 2 // 3
        plan: Plan = rng.choice([(text(), grid), (grid, text()), (part, grid, part, grid, part)])
        if num_positions(plan) > room:
            break
        plans.append(plan)
        room -= num_positions(plan)
    # What is left goes to a last document, with an image if it holds one.
    if room >= num_patches + 5:
        plans.append((room - num_patches - 4, grid))
    elif room >= 3:
        plans.append((room - 2,))
    return plans


def num_positions(plan: Plan) -> int:
    """Positions of a document with its markers."""
    return 2 + sum(part if isinstance(part, int) else math.prod(part) + 2 for part in plan)


def num_tokens(plan: Plan) -> int:
    """Text tokens and patches, which is what is counted on both sides; markers are not."""
    return sum(part if isinstance(part, int) else math.prod(part) for part in plan)


def make_document(plan: Plan, vocab_size: int, generator: torch.Generator) -> list[Tensor]:
    """Text as int64 [n], images as float32 [Y, X, W]."""
    patch_dim = CHANNELS * PATCH_SIDE**2
    return [
        torch.randint(FIRST_WORD, vocab_size, (part,), generator=generator)
        if isinstance(part, int)
        else torch.randn(*part, patch_dim, generator=generator)
        for part in plan
    ]


def make_batch(work: Work, num_rows: int, seed: int) -> tuple[Batch, int]:
    """A batch of num_rows full rows, and how many tokens it counts."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    plans = [plan_row(rng, work.row_length, work.grid) for _ in range(num_rows)]
    rows = [[make_document(plan, work.vocab_size, generator) for plan in row] for row in plans]
    config = configuration(work, work.presets[0])
    return batch_of(rows, config, work.row_length), sum(num_tokens(plan) for row in plans for plan in row)
