"""One training process from start to end: it opens the rows, resumes, trains and reports.

It runs under Ray Train (`components.runtime.workers.run_workers`). Worker 0 alone writes: the MLflow run, the
checkpoints, and at the end the finished model.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from components.data.loader import PackedRows
from components.runtime.workers import World, join_workers
from components.training.checkpoints import load_checkpoint
from components.training.config import TrainConfig
from components.training.loop import Trainer, new_state
from components.training.observer import Observer, Witness
from components.training.run_folder import resume_together
from components.training.work import Work
from model.compiled import compile_for_training
from model.config import ModelConfig, image_modality, model_config
from model.transfusion import Transfusion


def run_worker(settings: dict[str, Any]) -> None:
    """The function every worker runs. settings: {"work": Work, "num_threads": int}."""
    train_to_the_end(settings["work"], join_workers(settings["num_threads"]))


def train_to_the_end(work: Work, world: World) -> None:
    """Train from the newest usable checkpoint to the last step; worker 0 writes `work.finished`."""
    config = work.config
    rows = PackedRows(work.latents, "train", work.quarantine)
    validation = PackedRows(work.latents, "validation", work.quarantine)
    torch.manual_seed(config.seed)
    state = new_state(Transfusion(configuration(config, rows)), config, world.device)
    # Only what is trained: the EMA weights see batches of other sizes, and seldom.
    if config.compile == "on" or (config.compile == "auto" and world.device.type == "cuda"):
        compile_for_training(state.model)
    with work.only_writer() if world.rank == 0 else nullcontext():
        step = resume_together(work.store, partial(load_checkpoint, state=state), work.say, world)
        trainer = Trainer(config, state, rows, validation, world)
        if world.rank > 0:
            trainer.run(Witness(), first_step=step + 1)
            return
        observer = Observer(work, rows, world, resumed_from=step)
        trainer.run(observer, first_step=step + 1)
        observer.finish(state)


def configuration(config: TrainConfig, rows: PackedRows) -> ModelConfig:
    """The model that `config` asks for, on the data as it is."""
    choice = config.model
    images = image_modality(
        channels=rows.latent_shape[0],
        patch_side=choice.patch_side,
        patch_layers=choice.patch_layers,
        unet_channels=choice.unet_channels,
        begin_token_id=rows.special_ids["boi"],
        end_token_id=rows.special_ids["eoi"],
    )
    return model_config(
        choice.preset,
        vocab_size=rows.vocab_size,
        modalities=(images,),
        prediction_type=choice.prediction_type,
        zero_terminal_snr=choice.zero_terminal_snr,
        experts=choice.experts,
        qk_norm=choice.qk_norm,
        max_position_embeddings=rows.row_length,
        special_ids=rows.special_ids,
    )
