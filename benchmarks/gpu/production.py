"""The production's trainer on made-up packed rows: what benchmarks/gpu measures is what `train` runs.

Legend: B rows.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from benchmarks.gpu.work import BEGIN_IMAGE, CHANNELS, END_IMAGE, PATCH_SIDE, SPECIAL_IDS, Work, make_batch
from components.data.loader import ImageDocument, PackedRows
from components.data.row_layout import RowForm
from components.runtime.world import World
from components.training.transformer.config import (
    HeldOutImagesConfig,
    LearningRateScales,
    ModelChoice,
    SamplingConfig,
    ScheduleConfig,
    SelectionConfig,
    TrainConfig,
)
from components.training.transformer.state import new_state
from components.training.transformer.trainer import TransformerTrainer
from model.batch import Batch
from model.compiled import compile_for_training
from model.config import Preset
from model.loss_options import PLAIN

# Batches that take turns, each of another layout: one that compiled anew would show.
NUM_LAYOUTS = 12
# The paper's, arXiv 2408.11039, Sec. 4.1, but for the warm-up.
LEARNING_RATE, IMAGE_WEIGHT = 3e-4, 5.0


class MadeUpRows(PackedRows):
    """Full rows of mixed documents, made beforehand: reading them from disk is the data path's affair (benchmarks/data)."""

    def __init__(self, work: Work, num_rows: int) -> None:
        """num_rows: B of every batch."""
        self.row_length, self.patch_side, self.vocab_size = work.row_length, PATCH_SIDE, work.vocab_size
        self.latent_shape = (CHANNELS, work.grid[0] * PATCH_SIDE, work.grid[1] * PATCH_SIDE)
        self.special_ids = SPECIAL_IDS | {"boi": BEGIN_IMAGE, "eoi": END_IMAGE}
        self.form = RowForm(self.row_length, self.patches_per_image, BEGIN_IMAGE, SPECIAL_IDS["pad"])
        self.num_rows, self.num_images = num_rows * NUM_LAYOUTS, 0
        self.made = [make_batch(work, num_rows, seed) for seed in range(NUM_LAYOUTS)]

    def batch(self, rows: Any, *, step: int, **_: Any) -> Batch:
        """A batch of so many rows, for each step the next layout."""
        return self.made[step % NUM_LAYOUTS][0]

    def tokens_a_position(self) -> float:
        """Text tokens and patches, which are counted on both sides of a comparison, over all positions in use."""
        positions = sum(int(batch.used(SPECIAL_IDS["pad"]).sum()) for batch, _ in self.made)
        return sum(num_tokens for _, num_tokens in self.made) / positions

    def image_documents(self, number: int) -> list[ImageDocument]:
        """None: nothing is measured on held-out images."""
        return []


def new_trainer(
    config: TrainConfig, rows: PackedRows, validation: PackedRows, device: torch.device, *, compiler: str | None
) -> TransformerTrainer:
    """The trainer of one worker on `device`. compiler: backend of torch.compile, None for none; `config.compile` is off."""
    world = World(0, 1, device)
    state = new_state(config, rows, world)
    if compiler:
        compile_for_training(state.model, backend=compiler)
    return TransformerTrainer(config, state, rows, validation, world)


def train_config(preset: str, *, batch_rows: int, max_steps: int, report_every_steps: int, hidden_states: Any) -> TrainConfig:
    """The paper's training in so many steps."""
    return TrainConfig(
        seed=17,
        model=ModelChoice(
            preset=cast(Preset, preset),
            patch_side=PATCH_SIDE,
            patch_layers="linear",
            unet_channels=(),
            prediction_type="flow",
            zero_terminal_snr=False,
            experts="shared",
            qk_norm=False,
        ),
        batch_rows=batch_rows,
        micro_batch_rows=0,
        max_steps=max_steps,
        warmup_steps=max_steps // 2,
        schedule=ScheduleConfig(kind="cosine", decay_ratio=0.2, decay_type="sqrt"),
        learning_rate_scales=LearningRateScales(text=1.0, images=1.0, shared=1.0),
        pretrained="",
        learning_rate=LEARNING_RATE,
        min_learning_rate=LEARNING_RATE / 10,
        weight_decay=0.1,
        optimiser="adamw",
        muon_momentum=0.95,
        adam_beta1=0.9,
        adam_beta2=0.95,
        adam_eps=1e-8,
        clip_norm=1.0,
        image_loss_weight=IMAGE_WEIGHT,
        loss=PLAIN,
        image_first_time_limit=0.5,
        caption_dropout=0.1,
        resample_latents=False,
        ema_decay=0.999,
        precision="bfloat16",
        compile="off",
        step_timeout_s=0.0,
        parallel="ddp",
        activation_checkpointing="none",
        hidden_states=hidden_states,
        flex_attention="triton",
        checkpoint_every_steps=max_steps,
        sample_every_steps=max_steps,
        log_every_steps=report_every_steps,
        validate_every_steps=max_steps,
        held_out_images=HeldOutImagesConfig(num_documents=1, noise_levels=(0.5,)),
        selection=SelectionConfig(weights="last", figure="loss", patience=0, min_improvement=0.0),
        sampling=SamplingConfig(prompts=("none",), guidance_scale=1.0, num_steps=1),
    )
