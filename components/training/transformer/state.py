"""What the transformer's training changes, as it is before the first step."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from components.data.loader import PackedRows
from components.runtime.world import World
from components.training.checkpoints import Trained
from components.training.parallel import copy_shards, is_sharded, layout_of, mesh_of, shard
from components.training.precision import product_type
from components.training.transformer.activation_checkpointing import checkpoint_activations
from components.training.transformer.config import TrainConfig
from components.training.transformer.optimiser import build_optimisers, freeze
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
    """The average after the best validation; None where the last one is handed on. On the CPU of worker 0 alone, and where
    weights are sharded on all workers, cut as they are."""

    @property
    def is_sharded(self) -> bool:
        """Whether each worker holds a part of every parameter, so that all must take part in whatever reads the weights."""
        return is_sharded(self.model)

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

    @property
    def kept_network(self) -> str:
        """The name of the network whose weights are handed on, where the training has ended."""
        return "best_model" if self.best_model is not None and self.selection.best_step else "ema_model"

    def keep_selected(self) -> None:
        """Make the average the weights that are handed on, where the training has ended."""
        if self.best_model is not None and self.kept_network == "best_model":
            self.ema_model.load_state_dict(self.best_model.state_dict())


def new_state(config: TrainConfig, rows: PackedRows, world: World, start: Path | None = None) -> TransformerState:
    """The weights of the seed, an average equal to them, and optimisers without moments.

    start: the folder of train.pretrained's weights, which take the place of the seed's.
    """
    torch.manual_seed(config.seed)
    model = Transfusion(configuration(config, rows)).train()
    if start is not None:
        # Here, because it brings tokenizers, which a training from the seed's weights does without.
        from components.training.transformer.pretrained import load_pretrained

        load_pretrained(model, start)
    mesh = mesh_of(layout_of(config.parallel, sum(each.numel() for each in model.parameters()), world), world)
    ema_model, best_model = _placed(model, config, world) if mesh is None else _sharded(model, config, world, mesh)
    selection = Selection(config.selection, config.max_steps)
    return TransformerState(model, ema_model, build_optimisers(model, config, world), selection, best_model)


def _placed(model: Transfusion, config: TrainConfig, world: World) -> tuple[Transfusion, Transfusion | None]:
    """Bring `model` whole to the worker's device; its average, and a copy for the best one where one is kept."""
    ema_model = copy.deepcopy(model.to(world.device)).eval().requires_grad_(False)
    _arrange(model, config, world)
    return ema_model, copy.deepcopy(ema_model).cpu() if _keeps_best(config) and world.rank == 0 else None


def _sharded(model: Transfusion, config: TrainConfig, world: World, mesh: DeviceMesh) -> tuple[Transfusion, Transfusion | None]:
    """The same in shards: the model is whole in the machine's memory before, and nothing is on the devices."""
    _arrange(model, config, world)
    shard(model, model.transformer.blocks, mesh, product_type=product_type(config.precision, world.device))
    ema_model = _sharded_copy(model, mesh, world)
    return ema_model, _sharded_copy(model, mesh, world) if _keeps_best(config) else None


def _sharded_copy(model: Transfusion, mesh: DeviceMesh, world: World) -> Transfusion:
    """Weights that nobody trains, cut as `model` is, and never whole anywhere; in float32, whatever products are in."""
    with torch.device("meta"):
        copied = Transfusion(model.config).eval().requires_grad_(False)
    shard(copied, copied.transformer.blocks, mesh, is_trained=False, also_called=("step",))
    copied.to_empty(device=world.device)
    copy_shards(copied, model)
    return copied


def _arrange(model: Transfusion, config: TrainConfig, world: World) -> None:
    freeze(model, config)
    # Only what is trained: the average sees batches of other sizes, and seldom, and without gradients.
    if config.compile == "on" or (config.compile == "auto" and world.device.type == "cuda"):
        compile_for_training(model)
    if config.hidden_states == "bfloat16":
        model.hidden_dtype = product_type(config.precision, world.device)
    model.flex_backend = config.flex_attention
    checkpoint_activations(model, config.activation_checkpointing)


def _keeps_best(config: TrainConfig) -> bool:
    return config.selection.weights == "best"


class EncodedData(Protocol):
    """What a model has to know of the data: of its rows, or of their manifest."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        ...

    @property
    def vocab_size(self) -> int:
        """Control tokens included."""
        ...

    @property
    def row_length(self) -> int:
        """Positions."""
        ...

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Control token -> id."""
        ...


def configuration(config: TrainConfig, rows: EncodedData) -> ModelConfig:
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
