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
from model.compiled import compile_for_training
from model.config import ModelConfig, image_modality, model_config
from model.transfusion import Transfusion


class TransformerState(NamedTuple):
    """The model, the moving average of its weights, and the optimisers, which hold the moments."""

    model: Transfusion
    ema_model: Transfusion
    optimisers: tuple[torch.optim.Optimizer, ...]

    def networks(self) -> dict[str, Trained]:
        """What a checkpoint holds."""
        return {"model": Trained(self.model, self.optimisers), "ema_model": Trained(self.ema_model)}

    def others(self) -> dict[str, Tensor]:
        """None: all that a step changes is a network's or its optimiser's."""
        return {}


def new_state(config: TrainConfig, rows: PackedRows, world: World) -> TransformerState:
    """The weights of the seed, an average equal to them, and optimisers without moments."""
    torch.manual_seed(config.seed)
    model = Transfusion(configuration(config, rows)).to(world.device).train()
    ema_model = copy.deepcopy(model).eval().requires_grad_(False)
    # Only what is trained: the average sees batches of other sizes, and seldom.
    if config.compile == "on" or (config.compile == "auto" and world.device.type == "cuda"):
        compile_for_training(model)
    return TransformerState(model, ema_model, build_optimisers(model, config, world))


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
