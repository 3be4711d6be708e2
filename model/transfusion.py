"""What is Transfusion? One transformer with two ways in and two ways out: text tokens and noised image patches.

Transfusion, arXiv 2408.11039, Sec. 3. Text enters by an embedding and leaves by an untied head; patches enter and leave by
the codec. Both share every weight in between.

Legend: B rows, L row length, D width, P patches in the batch, W numbers in a patch, M images, N predicted tokens,
V vocabulary, S positions a step, H heads, K head width, T cache length.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import noise
from model.attention import packed_attention
from model.config import ModelConfig
from model.engine import Cache, StepInputs, StepOutput
from model.patches import LinearPatchCodec
from model.transformer import Attend, Transformer
from model.visibility import visible


class Batch(NamedTuple):
    """Packed rows of documents.

    ids: int64 [B, L]; pad_id where unused, anything where a patch stands.
    position: int64 [B, L], from 0 in each document. first, last: int32 [B, L], the interval each position sees, in the row.
    patches: float32 [P, W], clean, images one after the other. patch_at: int64 [P], index into the flattened [B * L].
    patch_image: int64 [P], which image of the batch. image_sample: int64 [M], the image's number in its split.
    time_limit: float32 [M], largest noise level.
    predict_at: int64 [N], flattened indices of the text positions that predict. target: int64 [N], what they predict.
    after_image: bool [N], whether an image stands before the position in its document.
    """

    ids: Tensor
    position: Tensor
    first: Tensor
    last: Tensor
    patches: Tensor
    patch_at: Tensor
    patch_image: Tensor
    image_sample: Tensor
    time_limit: Tensor
    predict_at: Tensor
    target: Tensor
    after_image: Tensor

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(part.to(device) for part in self))


class Output(NamedTuple):
    """logits: [N, V], only where text is predicted. prediction: float32 [P, W], the objective's target."""

    logits: Tensor
    prediction: Tensor


class LossSums(NamedTuple):
    """Summed losses and what they were summed over, so that any number of workers can form the same mean.

    text: cross-entropy in nats over num_tokens, weighted ones counted by their weight. image: squared error over
    num_values numbers.
    """

    text: Tensor
    num_tokens: float
    image: Tensor
    num_values: int


class Transfusion(nn.Module):
    """Embedding, codec, transformer and head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.codec = LinearPatchCodec(config.patch_width, config.width)
        self.transformer = Transformer(config)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Normal with deviation 0.02 at width 1024, and by 1 / sqrt(width) at others.

        Layers that write into the stream are scaled by 1 / sqrt(2 * layers) on top (GPT-2).
        """
        plain = 0.02 * (1024 / self.config.width) ** 0.5
        into_stream = plain / (2 * self.config.num_layers) ** 0.5
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.ones_(parameter)
            elif parameter.dim() == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=into_stream if name.endswith(("out.weight", "down.weight")) else plain)

    def forward(self, batch: Batch, noised: Tensor, time: Tensor) -> Output:
        """The training pass. noised: float32 [P, W]; time: float32 [M], each image's noise level."""
        num_rows, length = batch.ids.shape
        x = self.embedding(batch.ids).flatten(0, 1)
        patches = self.codec.encode(noised, time[batch.patch_image])
        x = x.index_copy(0, batch.patch_at, patches.to(x.dtype)).view(num_rows, length, -1)
        attend = packed_attention(batch.first, batch.last)
        hidden = self.transformer(x, batch.position, attend).flatten(0, 1)
        return Output(
            # A gather, because most of the head's work would be spent on positions that predict no text.
            logits=self.head(hidden[batch.predict_at]),
            prediction=self.codec.decode(hidden[batch.patch_at]),
        )

    def step(self, inputs: StepInputs, cache: Cache) -> StepOutput:
        """One generation step on a slot cache, written in place; see model/engine.py."""
        attend = cached_attention(cache, inputs.write_at, inputs.q_last, inputs.num_keys)
        return self.step_with(inputs, attend)

    def step_with(self, inputs: StepInputs, attend: Attend) -> StepOutput:
        """`step` with the cache behind `attend`: exported graphs bring their own update of it."""
        patches = self.codec.encode(inputs.patches, inputs.time.unsqueeze(1))
        x = torch.where(inputs.is_image.unsqueeze(-1), patches, self.embedding(inputs.ids))
        hidden = self.transformer(x, inputs.position, attend)
        read_at = inputs.read_at.view(-1, 1, 1).expand(-1, 1, hidden.shape[-1])
        return StepOutput(
            logits=self.head(hidden.gather(1, read_at).squeeze(1)).float(),
            prediction=self.codec.decode(hidden),
        )


def cached_attention(cache: Cache, write_at: Tensor, q_last: Tensor, num_keys: int) -> Attend:
    """Attention over slots: write the new keys and values, then see every column up to q_last."""
    mask = visible(torch.zeros_like(q_last), q_last, num_keys).unsqueeze(1)
    row = torch.arange(len(write_at), device=write_at.device).unsqueeze(1)
    column = write_at.unsqueeze(1) + torch.arange(q_last.shape[1], device=write_at.device)

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = cache[layer]
        keys[row, :, column] = key.transpose(1, 2)
        values[row, :, column] = value.transpose(1, 2)
        return F.scaled_dot_product_attention(query, keys[:, :, :num_keys], values[:, :, :num_keys], attn_mask=mask)

    return attend


def loss_sums(
    model: nn.Module, batch: Batch, seed: int, step: int, *, time_shift: float = 1.0, after_image_weight: float = 1.0
) -> LossSums:
    """Both losses of a batch, with the noise of (seed, step).

    model: a Transfusion, or a wrapper with its forward. seed and step key the draw, not the state of any generator.
    time_shift: see `noise.shifted`; 1 draws times uniformly. after_image_weight: how often a token after an image counts.
    """
    num_patches = torch.bincount(batch.patch_image, minlength=len(batch.image_sample))
    drawn = noise.draw(seed, step, batch.image_sample, num_patches, batch.patches.shape[-1])
    time = noise.shifted(drawn.time, time_shift).to(batch.patches.device) * batch.time_limit
    return loss_sums_at(model, batch, drawn.noise.to(batch.patches.device), time, after_image_weight=after_image_weight)


def loss_sums_at(
    model: nn.Module, batch: Batch, noise_values: Tensor, time: Tensor, *, after_image_weight: float = 1.0
) -> LossSums:
    """Both losses at given noise, float32 [P, W], and times, float32 [M]."""
    config = cast(ModelConfig, getattr(model, "module", model).config)
    noised = noise.add_noise(config.objective, batch.patches, noise_values, time[batch.patch_image].unsqueeze(-1))
    output = model(batch, noised, time)
    wanted = noise.target(config.objective, batch.patches, noise_values)
    weight = torch.where(batch.after_image, after_image_weight, 1.0)
    return LossSums(
        text=F.cross_entropy(output.logits.float(), batch.target, reduction="none") @ weight,
        num_tokens=float(weight.sum()),
        image=F.mse_loss(output.prediction, wanted, reduction="sum"),
        num_values=batch.patches.numel(),
    )
