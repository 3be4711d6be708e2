"""What is Transfusion? One transformer with two ways in and two ways out: text tokens and noised latent patches.

Transfusion, arXiv 2408.11039, Sec. 3. Text enters by an embedding and leaves by an untied head; the patches of each modality
enter and leave by its codec. Both share every weight in between, unless the configuration gives modalities their own.
A model is kept as Hugging Face lays models out: a folder of config.json and model.safetensors.

Legend: B rows, L row length, D width, P patches and M latents of one modality in the batch, W numbers in a patch, N predicted
tokens, V vocabulary, S positions a step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.attention.cached import cached_attention
from model.attention.packed import packed_attention
from model.batch import Batch
from model.config import ModelConfig
from model.experts import Route, route_of_batch, route_of_step, shared
from model.generation.engine import Cache, StepInputs, StepOutput
from model.latents.codecs import Codec, Skip, new_codec, read_step, write_step
from model.token_loss import TokenLoss, token_loss
from model.transformer import Attend, Transformer


class Hidden(NamedTuple):
    """stream: [B * L, D], normalised, ready for either head. skips: for each modality, what its codec's way out needs."""

    stream: Tensor
    skips: tuple[Skip, ...]


class Output(NamedTuple):
    """text: losses of the N predicted tokens. predictions: for each modality float32 [P, W], the network's prediction."""

    text: TokenLoss
    predictions: tuple[Tensor, ...]


class Transfusion(nn.Module):
    """Embedding, codecs, transformer and head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.codecs = nn.ModuleList(new_codec(modality, config.width) for modality in config.modalities)
        self.transformer = Transformer(config)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
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

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config.to_dict(), indent=2) + "\n")
        weights = {name: weight.detach().cpu().contiguous() for name, weight in self.state_dict().items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def init_weights(self) -> None:
        """Normal with deviation 0.02 at width 1024, and by 1 / sqrt(width) at others; a U-Net begins as it was built.

        Layers that write into the stream are scaled by 1 / sqrt(2 * layers) on top (GPT-2).
        """
        plain = 0.02 * (1024 / self.config.width) ** 0.5
        into_stream = plain / (2 * self.config.num_layers) ** 0.5
        unets = tuple(f"codecs.{number}." for number, each in enumerate(self.config.modalities) if each.codec == "unet")
        for name, parameter in self.named_parameters():
            if name.startswith(unets):
                continue
            if "norm" in name:
                nn.init.ones_(parameter)
            elif parameter.dim() == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=into_stream if name.endswith(("out.weight", "down.weight")) else plain)

    def forward(self, batch: Batch, noised: Sequence[Tensor], time: Sequence[Tensor]) -> Output:
        """The training pass. noised, time: of each modality, float32 [P, W] and its latents' noise levels, float32 [M]."""
        hidden = self.hidden(batch, noised, time)
        predictions = tuple(
            codec.decode(hidden.stream[part.patch_at], time[number], part.grids, hidden.skips[number])
            for number, (codec, part) in enumerate(zip(self._codecs(), batch.latents, strict=True))
        )
        # A gather, because most of the head's work would be spent on positions that predict no text.
        return Output(self.text_loss(hidden.stream[batch.predict_at], batch.target), predictions)

    def text_loss(self, hidden: Tensor, target: Tensor) -> TokenLoss:
        """Losses of predicting target, int64 [N], from hidden, [N, D]."""
        return token_loss(hidden, self.head.weight, target)

    def hidden(self, batch: Batch, noised: Sequence[Tensor], time: Sequence[Tensor]) -> Hidden:
        """What the transformer makes of a batch, before the heads; arguments as for `forward`."""
        num_rows, length = batch.ids.shape
        x, skips = self.embedding(batch.ids).flatten(0, 1), []
        for number, (codec, part) in enumerate(zip(self._codecs(), batch.latents, strict=True)):
            embedded, skip = codec.encode(noised[number], time[number], part.patch_image, part.grids)
            x = x.index_copy(0, part.patch_at, embedded.to(x.dtype))
            skips.append(skip)
        route: Route = shared
        if self.config.num_experts > 1:
            route = route_of_batch([part.patch_at for part in batch.latents], num_rows * length)
        attend = packed_attention(batch.first, batch.last)
        stream = self.transformer(x.view(num_rows, length, -1), batch.position, attend, route)
        return Hidden(stream.flatten(0, 1), tuple(skips))

    def step(self, inputs: StepInputs, cache: Cache) -> StepOutput:
        """One generation step on a slot cache, written in place; see model/generation/engine.py."""
        attend = cached_attention(cache, inputs)
        route = route_of_step(inputs.kind, self.config.num_experts) if self.config.num_experts > 1 else shared
        return self.step_with(inputs, attend, route)

    def step_with(self, inputs: StepInputs, attend: Attend, route: Route) -> StepOutput:
        """`step` with the cache behind `attend` and the experts behind `route`: exported graphs bring their own."""
        x, read = self.embedding(inputs.ids), []
        for number, (codec, modality) in enumerate(zip(self._codecs(), self.config.modalities, strict=True)):
            x, latents = read_step(codec, modality, number, inputs, x)
            read.append(latents)
        hidden = self.transformer(x, inputs.position, attend, route)
        prediction = torch.zeros(*hidden.shape[:2], self.config.patch_width, device=hidden.device)
        for codec, modality, latents in zip(self._codecs(), self.config.modalities, read, strict=True):
            prediction = write_step(codec, modality, latents, hidden, prediction)
        read_at = inputs.read_at.view(-1, 1, 1).expand(-1, 1, hidden.shape[-1])
        return StepOutput(self.head(hidden.gather(1, read_at).squeeze(1)).float(), prediction)

    def _codecs(self) -> list[Codec]:
        return list(self.codecs)  # type: ignore[arg-type]
