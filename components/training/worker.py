"""What does one training process do from start to end? Opens the rows, resumes, trains, reports.

It runs under Ray Train (`components.runtime.workers.run_workers`). Worker 0 alone writes: the MLflow run, the
checkpoints, and at the end the finished model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from components.data.loader import PackedRows
from components.training.checkpoints import resume
from components.training.config import TrainConfig
from components.training.loop import Trainer, World, new_state
from components.training.observer import Observer, Report, Witness
from components.training.work import Work
from model.compiled import compile_for_training
from model.config import ModelConfig, image_modality, model_config
from model.transfusion import Transfusion


def run_worker(settings: dict[str, Any]) -> None:
    """The function every worker runs. settings: {"work": Work, "num_threads": int}."""
    from ray import train as ray_train
    from ray.train.torch import get_device

    torch.set_num_threads(settings["num_threads"])
    torch.set_float32_matmul_precision("high")
    context = ray_train.get_context()
    device = get_device()
    assert isinstance(device, torch.device)
    train_to_the_end(settings["work"], World(context.get_world_rank(), context.get_world_size(), device), tell_ray)


def tell_ray(step: int, folder: Path | None) -> None:
    """Tell Ray Train of a checkpoint that stands in its store already (None from the workers that did not write it)."""
    from ray import train as ray_train

    checkpoint = ray_train.Checkpoint.from_directory(str(folder)) if folder else None
    mode = ray_train.CheckpointUploadMode.NO_UPLOAD
    ray_train.report({"step": step}, checkpoint=checkpoint, checkpoint_upload_mode=mode)


def train_to_the_end(work: Work, world: World, report: Report) -> None:
    """Train from the newest usable checkpoint to the last step; worker 0 writes `work.finished`.

    report: called by every worker after every checkpoint.
    """
    config = work.config
    rows = PackedRows(work.latents, "train", work.quarantine)
    validation = PackedRows(work.latents, "validation", work.quarantine)
    torch.manual_seed(config.seed)
    state = new_state(Transfusion(configuration(config, rows)), config, world.device)
    # Only what is trained: the averaged weights see batches of other sizes, and seldom.
    if config.compile == "on" or (config.compile == "auto" and world.device.type == "cuda"):
        compile_for_training(state.model)
    if world.rank > 0:
        step = resume(work.store, state, lambda line: None)
        Trainer(config, state, rows, validation, world).run(Witness(report), first_step=step + 1)
        return
    with work.only_writer():
        step = resume(work.store, state, work.say)
        trainer = Trainer(config, state, rows, validation, world)
        observer = Observer(work, rows, world, report, resumed_from=step)
        trainer.run(observer, first_step=step + 1)
        observer.finish(state)


def configuration(config: TrainConfig, rows: PackedRows) -> ModelConfig:
    """The model that `config` asks for, on the data as it is."""
    choice = config.model
    images = image_modality(
        channels=rows.latent_shape[0],
        patch_side=choice.patch_side,
        codec=choice.codec,
        unet_channels=choice.unet_channels,
        begin_id=rows.special_ids["boi"],
        end_id=rows.special_ids["eoi"],
    )
    return model_config(
        choice.preset,
        vocab_size=rows.vocab_size,
        modalities=(images,),
        objective=choice.objective,
        zero_terminal_snr=choice.zero_terminal_snr,
        experts=choice.experts,
        qk_norm=choice.qk_norm,
        max_length=rows.row_length,
        special_ids=rows.special_ids,
    )
