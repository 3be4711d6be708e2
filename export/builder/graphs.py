"""What is exported: torch modules whose forward is one ONNX graph each, a step and the autoencoder's two.

The step graph is `Transfusion.step` made pure: caches come in and go out, and the active window of the cache is the
length of one input. One graph serves prefill, text decoding, denoising in place and the commit of a finished latent, for any
number of modalities with linear layers. Where modalities have weights of their own, it computes every position with each of
them and takes one, because no shape in a graph may depend on values.

Legend: B rows, S positions a step, W numbers in the widest modality's patch, V vocabulary, H heads, T cache length, D head
width, K active cache columns, C latent channels, Y/X latent height/width; pixels are float32 [B, 3, height, width] in -1..1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import GateRefused
from export.builder.kv_cache_operator import scatter_cache, write_cache
from export.graph_names import DECODER, ENCODER, STEP, STEP_DIMS, STEP_OUTPUTS, cache_names
from model.config import ModelConfig
from model.experts import selected, shared
from model.latents.autoencoder import Autoencoder
from model.step import StepInputs
from model.transfusion import Transfusion


class Limits(NamedTuple):
    """Smallest and largest size of a named dimension."""

    min: int
    max: int


class GraphSpec(NamedTuple):
    """One graph to export."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    """Name -> example, in the order of the module's forward."""
    outputs: tuple[str, ...]
    dims: dict[str, dict[int, str]]
    """Of each input: axis -> the name of its dimension, which may change from call to call."""
    limits: dict[str, Limits]
    """Of each named dimension."""
    num_trailing: int
    """How many inputs the module takes as *args."""

    def arguments(self) -> tuple[Tensor, ...]:
        """The example inputs in the order of the graph's forward pass."""
        return tuple(self.inputs.values())


def step_spec(model: Transfusion, *, opset: int) -> GraphSpec:
    """The step graph of `model`, with slots of all its positions; raises GateRefused for a U-Net."""
    config = model.config
    unets = [modality.name for modality in config.modalities if modality.patch_layers == "unet"]
    if unets:
        raise GateRefused(
            f"the U-Net of {', '.join(unets)} cannot be exported yet, because its work depends on the latents' sizes;"
            " train with linear patch layers, or run the model in torch"
        )
    # Distinct sizes of at least 2, or the exporter would take a dimension for a constant.
    inputs = step_example(config, num_rows=3, num_positions=5, kv_length=9)
    caches = cache_names("cache", config.num_hidden_layers)
    dims = STEP_DIMS | {name: {0: "batch"} for name in caches}
    # A runtime's cache update wants a step shorter than the slot.
    limits = {
        "batch": Limits(1, 65536),
        "step": Limits(1, config.max_position_embeddings - 1),
        "keys": Limits(1, config.max_position_embeddings),
    }
    outputs = (*STEP_OUTPUTS, *cache_names("present", config.num_hidden_layers))
    return GraphSpec(STEP, StepGraph(model, opset=opset), inputs, outputs, dims, limits, num_trailing=len(caches))


def encoder_spec(autoencoder: Autoencoder) -> GraphSpec:
    """Pixels -> normalised latents (the posterior's mean), for any number and size of images."""
    scale = autoencoder.pixels_per_latent
    example = torch.zeros(2, 3, 4 * scale, 6 * scale)
    limits = {"batch": Limits(1, 65536), "height": Limits(scale, 8192), "width": Limits(scale, 8192)}
    dims = {"pixels": {0: "batch", 2: "height", 3: "width"}}
    return GraphSpec(ENCODER, EncoderGraph(autoencoder), {"pixels": example}, ("latents",), dims, limits, num_trailing=0)


def decoder_spec(autoencoder: Autoencoder) -> GraphSpec:
    """Normalised latents -> pixels, not clamped, for any number and size of images."""
    example = torch.zeros(2, autoencoder.latent_channels, 4, 6)
    limits = {"batch": Limits(1, 65536), "latent_height": Limits(1, 1024), "latent_width": Limits(1, 1024)}
    dims = {"latents": {0: "batch", 2: "latent_height", 3: "latent_width"}}
    return GraphSpec(DECODER, DecoderGraph(autoencoder), {"latents": example}, ("pixels",), dims, limits, num_trailing=0)


def step_example(config: ModelConfig, *, num_rows: int, num_positions: int, kv_length: int) -> dict[str, Tensor]:
    """Inputs of the step graph with the given sizes, in its order; zeros where values do not matter."""
    size, cache = (
        (num_rows, num_positions),
        (num_rows, config.num_attention_heads, config.max_position_embeddings, config.head_dim),
    )
    inputs = {
        "input_ids": torch.zeros(size, dtype=torch.int64),
        "patches": torch.zeros(*size, config.patch_dim),
        "token_type_ids": torch.zeros(size, dtype=torch.int64),
        "time": torch.zeros(num_rows),
        "position_ids": torch.zeros(size, dtype=torch.int64),
        "kv_end": torch.zeros(size, dtype=torch.int64),
        "cache_position": torch.zeros(num_rows, dtype=torch.int64),
        "logits_index": torch.zeros(num_rows, dtype=torch.int64),
        # Its length is the active window: a size that is given as a number could not change from call to call.
        "key_position": torch.arange(kv_length),
    }
    return inputs | {name: torch.zeros(cache) for name in cache_names("cache", config.num_hidden_layers)}


class StepGraph(nn.Module):
    """`Transfusion.step` as a pure function of its inputs and of the caches, each [B, H, T, D]."""

    def __init__(self, model: Transfusion, *, opset: int) -> None:
        super().__init__()
        self.model = model
        # TensorScatter came with opset 24; before, the same update is a ScatterND.
        self.write = write_cache if opset >= 24 else scatter_cache

    def forward(
        self,
        input_ids: Tensor,
        patches: Tensor,
        token_type_ids: Tensor,
        time: Tensor,
        position_ids: Tensor,
        kv_end: Tensor,
        cache_position: Tensor,
        logits_index: Tensor,
        key_position: Tensor,
        *caches: Tensor,
    ) -> tuple[Tensor, ...]:
        """-> logits [B, V], prediction [B, S, W], then the caches with this step's keys and values written."""
        # Entries are replaced and never written into, for a graph has no side effects.
        present = list(caches)
        kv_length = key_position.shape[0]
        # Column 0 is visible to every query, so no row is masked whole; runtimes differ on such rows.
        mask = (key_position <= kv_end.unsqueeze(-1)).unsqueeze(1)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys = present[2 * layer] = self.write(present[2 * layer], key, cache_position)
            values = present[2 * layer + 1] = self.write(present[2 * layer + 1], value, cache_position)
            return F.scaled_dot_product_attention(query, keys[:, :, :kv_length], values[:, :, :kv_length], attn_mask=mask)

        inputs = StepInputs(
            input_ids, patches, token_type_ids, time, position_ids, kv_end, cache_position, logits_index, kv_length, grids=()
        )
        # Not by gathering each expert's positions, as torch does: their number is a value, and shapes must not depend on one.
        route = selected(token_type_ids) if self.model.config.num_experts > 1 else shared
        output = self.model.step_with(inputs, attend, route)
        return (output.logits, output.prediction, *present)


class EncoderGraph(nn.Module):
    """Pixels -> normalised latents."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels in -1..1, [B, 3, height, width] -> normalised latents [B, C, Y, X]."""
        return self.autoencoder.encode(pixels)


class DecoderGraph(nn.Module):
    """Normalised latents -> pixels."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latents: Tensor) -> Tensor:
        """The inverse: latents [B, C, Y, X] -> pixels [B, 3, height, width]."""
        return self.autoencoder.decode(latents)
