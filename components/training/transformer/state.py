"""What the transformer's training changes, as it is before the first step."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from components.data.loader import PackedRows
from components.runtime.world import World
from components.training.checkpoints import Trained
from components.training.transformer.config import TrainConfig
from components.training.transformer.optimiser import build_optimisers
from components.training.transformer.selection import Selection
from model.compiled import compile_for_training
from model.config import ModelConfig, image_modality, model_config
from model.transfusion import Transfusion


class TransformerState(NamedTuple):
    """The model, the moving average of its weights, the optimisers, which hold the moments, and what validations said."""

    model: Transfusion
    ema_model: Transfusion
    optimisers: tuple[torch.optim.Optimizer, ...]
    selection: Selection
    best_model: Transfusion | None
    """The average after the best validation, on the CPU; None where the last one is handed on, and on workers other than 0."""

    def networks(self) -> dict[str, Trained]:
        """What a checkpoint holds."""
        networks = {"model": Trained(self.model, self.optimisers), "ema_model": Trained(self.ema_model)}
        # In the checkpoint, and not beside it: what a checkpoint knows of the best step, it has the weights of.
        return networks if self.best_model is None else networks | {"best_model": Trained(self.best_model)}

    def others(self) -> dict[str, Tensor]:
        """What decides which weights are kept."""
        return {"selection": self.selection.state}

    def select(self, step: int, figure: float) -> None:
        """Take a validation's figure into account; every worker is given the same one."""
        if self.selection.take(step, figure) and self.best_model is not None:
            self.best_model.load_state_dict(self.ema_model.state_dict())

    def keep_selected(self) -> None:
        """Make the average the weights that are handed on, where the training has ended."""
        if self.best_model is not None and self.selection.best_step:
            self.ema_model.load_state_dict(self.best_model.state_dict())


def new_state(config: TrainConfig, rows: PackedRows, world: World) -> TransformerState:
    """The weights of the seed, an average equal to them, and optimisers without moments."""
    torch.manual_seed(config.seed)
    model = Transfusion(configuration(config, rows)).to(world.device).train()
    ema_model = copy.deepcopy(model).eval().requires_grad_(False)
    # Only what is trained: the average sees batches of other sizes, and seldom.
    if config.compile == "on" or (config.compile == "auto" and world.device.type == "cuda"):
        compile_for_training(model)
    best_model = copy.deepcopy(ema_model).cpu() if config.selection.weights == "best" and world.rank == 0 else None
    selection = Selection(config.selection, config.max_steps)
    return TransformerState(model, ema_model, build_optimisers(model, config, world), selection, best_model)


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
