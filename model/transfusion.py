"""Transfusion: one transformer with two ways in and two ways out, for text tokens and for noised latent patches.

Transfusion, arXiv 2408.11039, Sec. 3. Text enters by an embedding and leaves by an untied head; the patches of each modality
enter and leave by its patch layers. Both share every weight in between, unless the configuration gives modalities their own.
A model is kept as Hugging Face lays models out: a folder of config.json and model.safetensors.

Legend: B rows, L row length, D hidden size, P patches and M latents of one modality in the batch, W numbers in a patch, N
predicted tokens, V vocabulary, S positions a step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from core.files import named
from model.attention.cached import cached_attention
from model.attention.packed import FlexBackend, packed_attention
from model.batch import Batch
from model.config import ModelConfig
from model.experts import Route, route_of_batch, route_of_step, shared
from model.latents.patch_layers import PatchLayers, Skip, new_patch_layers, step_patches_in, step_patches_out
from model.step import Cache, StepInputs, StepOutput
from model.token_loss import TokenLoss, token_loss
from model.transformer import Attend, Transformer


class Hidden(NamedTuple):
    """What the transformer makes of a batch."""

    states: Tensor
    """[B * L, D], normalised, ready for either head."""
    skips: tuple[Skip, ...]
    """For each modality, what its patch layers' way out needs."""


class Output(NamedTuple):
    """What a training pass gives."""

    text: TokenLoss
    """Losses of the N predicted tokens."""
    predictions: tuple[Tensor, ...]
    """For each modality float32 [P, W], the network's prediction."""


class Transfusion(nn.Module):
    """Embedding, patch layers, transformer and head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.patch_layers = nn.ModuleList(new_patch_layers(modality, config.hidden_size) for modality in config.modalities)
        self.transformer = Transformer(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        # How a training pass is computed, and not what: the precision of hidden states between blocks, None for the weights',
        # and the kernel behind FlexAttention on a GPU.
        self.hidden_dtype: torch.dtype | None = None
        self.flex_backend: FlexBackend = "triton"
        self.init_weights()

    @staticmethod
    def from_pretrained(folder: Path) -> Transfusion:
        """The model of `folder`, on the CPU, in eval mode. Raises ValueError where its weights do not fit its configuration."""
        from safetensors.torch import load_file

        model = Transfusion(ModelConfig.from_dict(json.loads((folder / "config.json").read_text())))
        try:
            model.load_state_dict(load_file(folder / "model.safetensors"))
        except RuntimeError as error:
            raise ValueError(f"{folder}: model.safetensors does not fit config.json: {error}") from None
        return model.eval()

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json and model.safetensors into `folder`."""
        from safetensors.torch import save_file

        self.save_config(folder)
        weights = {name: weight.detach().cpu().contiguous() for name, weight in self.state_dict().items()}
        with named(folder):
            # Hugging Face's loaders ask for the format.
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def save_config(self, folder: Path) -> None:
        """Write config.json into `folder`, for weights that are written by themselves."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config.to_dict(), indent=2) + "\n")

    def init_weights(self) -> None:
        """Normal with deviation 0.02 at hidden size 1024, and by 1 / sqrt(hidden size) at others; a U-Net begins as built.

        Layers that are added to the hidden states are scaled by 1 / sqrt(2 * layers) on top (GPT-2).
        """
        std = 0.02 * (1024 / self.config.hidden_size) ** 0.5
        residual_std = std / (2 * self.config.num_hidden_layers) ** 0.5
        kinds = [modality.patch_layers for modality in self.config.modalities]
        unets = tuple(f"patch_layers.{number}." for number, kind in enumerate(kinds) if kind == "unet")
        for name, parameter in self.named_parameters():
            if name.startswith(unets):
                continue
            if "norm" in name:
                nn.init.ones_(parameter)
            elif parameter.dim() == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=residual_std if name.endswith((".out.weight", ".down.weight")) else std)

    def forward(self, batch: Batch, x_t: Sequence[Tensor], time: Sequence[Tensor]) -> Output:
        """The training pass. x_t: of each modality its noised patches, float32 [P, W]. time: its latents' noise levels, [M]."""
        hidden = self.hidden(batch, x_t, time)
        predictions = tuple(
            layers.patch_out(hidden.states[part.patch_positions], time[number], part.grids, hidden.skips[number])
            for number, (layers, part) in enumerate(zip(self._patch_layers(), batch.latents, strict=True))
        )
        # A gather, because most of the head's work would be spent on positions that predict no text.
        return Output(self.text_loss(hidden.states[batch.loss_positions], batch.labels), predictions)

    def text_loss(self, hidden: Tensor, labels: Tensor) -> TokenLoss:
        """Losses of predicting labels, int64 [N], from hidden, [N, D].

        A method of its own, because model/compiled.py puts a compiled one in its place.
        """
        return token_loss(hidden, self.head.weight, labels)

    def hidden(self, batch: Batch, x_t: Sequence[Tensor], time: Sequence[Tensor]) -> Hidden:
        """What the transformer makes of a batch, before the heads; arguments as for `forward`."""
        num_rows, length = batch.input_ids.shape
        # Every position is embedded, and patches then take their places: a lookup is cheap, and no index of the text is needed.
        x, skips = self.embedding(batch.input_ids).flatten(0, 1), []
        for number, (layers, part) in enumerate(zip(self._patch_layers(), batch.latents, strict=True)):
            embedded, skip = layers.patch_in(x_t[number], time[number], part.latent_index, part.grids)
            x = x.index_copy(0, part.patch_positions, embedded.to(x.dtype))
            skips.append(skip)
        route: Route = shared
        if self.config.num_experts > 1:
            route = route_of_batch([part.patch_positions for part in batch.latents], num_rows * length)
        # Masks and groups of documents are worked out here, once for all layers.
        attend = packed_attention(batch.kv_start, batch.kv_end, self.flex_backend)
        x = x.view(num_rows, length, -1).to(self.hidden_dtype or x.dtype)
        states = self.transformer(x, batch.position_ids, attend, route)
        return Hidden(states.flatten(0, 1), tuple(skips))

    def step(self, inputs: StepInputs, cache: Cache) -> StepOutput:
        """One generation step on a slot cache, written in place; see model/step.py."""
        attend = cached_attention(cache, inputs)
        num_experts = self.config.num_experts
        route = route_of_step(inputs.token_type_ids, num_experts) if num_experts > 1 else shared
        return self.step_with(inputs, attend, route)

    def step_with(self, inputs: StepInputs, attend: Attend, route: Route) -> StepOutput:
        """`step` with the cache behind `attend` and the experts behind `route`: exported graphs bring their own."""
        x, entered = self.embedding(inputs.input_ids), []
        for number, (layers, modality) in enumerate(zip(self._patch_layers(), self.config.modalities, strict=True)):
            x, latents = step_patches_in(layers, modality, number, inputs, x)
            entered.append(latents)
        hidden = self.transformer(x, inputs.position_ids, attend, route)
        # As wide as the widest modality's patch: a step has one output, whatever stands where.
        prediction = torch.zeros(*hidden.shape[:2], self.config.patch_dim, device=hidden.device)
        for layers, modality, latents in zip(self._patch_layers(), self.config.modalities, entered, strict=True):
            prediction = step_patches_out(layers, modality, latents, hidden, prediction)
        # One position a row goes through the head, which is a large part of a small model; and in float32 from here on, because
        # tokens are chosen by small differences.
        index = inputs.logits_index.view(-1, 1, 1).expand(-1, 1, hidden.shape[-1])
        return StepOutput(self.head(hidden.gather(1, index).squeeze(1)).float(), prediction)

    def _patch_layers(self) -> list[PatchLayers]:
        return list(self.patch_layers)  # type: ignore[arg-type]
