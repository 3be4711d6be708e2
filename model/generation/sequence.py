"""One request under way: the chunks it feeds next, and what it makes of the answer, text or a latent on its way from noise.

Transfusion (arXiv 2408.11039, Sec. 3.4): text token by token; on a begin token a block of noise is denoised in place against
the cached prefix; then the end token, and text goes on. With the end token goes the *clean* latent once more, overwriting the
noised one's keys and values, so that later text sees the latent itself and not its last noised state.

Legend: n positions of a chunk, p patches of a latent, W numbers in a modality's patch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from core.random import Stream, philox, seed_of
from model.config import ModelConfig
from model.diffusion.solvers import Denoiser
from model.generation.requests import Completion, Latent, Request, SamplingOptions
from model.latents.patches import patchify, unpatchify


class LatentSpan(NamedTuple):
    """A latent inside a chunk."""

    start: int
    """Its first position."""
    modality: int
    patches: Tensor
    """float32 [p, W]."""
    grid: tuple[int, ...]
    """Patches along each axis."""

    @property
    def stop(self) -> int:
        """The position behind its last."""
        return self.start + len(self.patches)


class Chunk(NamedTuple):
    """Tokens and patches that a sequence feeds in one pass."""

    ids: Tensor
    """int64 [n], anything where a patch stands."""
    last_token: int | None
    """The id that ends the chunk; None where a patch does."""
    latents: tuple[LatentSpan, ...] = ()
    time: float = 0.0
    """Noise level of the patches."""

    @property
    def size(self) -> int:
        """Positions: n."""
        return self.ids.numel()


def token_chunk(token: int) -> Chunk:
    """One text token."""
    return Chunk(torch.tensor([token]), token)


def prefix_chunks(config: ModelConfig, prefix: Sequence[Tensor | Latent]) -> list[Chunk]:
    """A prefix of token ids and latents, latents between their markers, as few chunks as the patch layers allow.

    Linear ones take any number of latents in a chunk; a latent for the U-Net begins a chunk of its own.
    """
    chunks: list[list[Tensor | Latent]] = [[]]
    for segment in prefix:
        if not isinstance(segment, Latent):
            chunks[-1].append(segment)
            continue
        modality = config.modalities[segment.modality]
        chunks[-1].append(torch.tensor([modality.begin_token_id]))
        if modality.patch_layers == "unet":
            chunks.append([])
        chunks[-1] += [segment, torch.tensor([modality.end_token_id])]
    return [_chunk(config, parts) for parts in chunks if parts]


def _chunk(config: ModelConfig, parts: Sequence[Tensor | Latent]) -> Chunk:
    ids: list[Tensor] = []
    latents: list[LatentSpan] = []
    size = 0
    for part in parts:
        if isinstance(part, Latent):
            modality = config.modalities[part.modality]
            patches = patchify(part.values.unsqueeze(0).float(), modality.patch_size)[0]
            latents.append(LatentSpan(size, part.modality, patches, modality.grid(part.values.shape[1:])))
            part = torch.full((len(patches),), config.pad_token_id)
        ids.append(part)
        size += len(part)
    joined = torch.cat(ids)
    return Chunk(joined, None if isinstance(parts[-1], Latent) else int(joined[-1]), tuple(latents))


class NoisyLatent:
    """A latent under way, and the solver that denoises it."""

    def __init__(
        self, config: ModelConfig, modality: int, axes: Sequence[int], options: SamplingOptions, generator: Stream
    ) -> None:
        self.modality, self.axes = modality, axes
        self._kind = config.modalities[modality]
        self._grid = self._kind.grid(axes)
        # float32 [p, W]; drawn on the CPU, so that every device begins with the same noise, and then where predictions are.
        shape = (math.prod(self._grid), self._kind.patch_dim)
        self.x_t = torch.from_numpy(generator.standard_normal(shape, dtype="float32"))
        # Only 32 bits of it count, for torch's generator reads no more: enough for what "ddpm" adds to noise that has them all.
        added = torch.Generator().manual_seed(int(generator.integers(2**63)))
        self.denoiser = Denoiser(config.process, options.solver, options.num_steps, added)

    def chunk(self, *, ended: bool) -> Chunk:
        """The latent as it is. ended: with its end token behind it."""
        # The ids under the patches are not read, so the end token may stand there too.
        ids = torch.full((len(self.x_t) + ended,), self._kind.end_token_id)
        span = LatentSpan(0, self.modality, self.x_t, self._grid)
        return Chunk(ids, int(ids[-1]) if ended else None, (span,), self.denoiser.time)

    def result(self) -> Latent:
        """The clean latent, on the CPU."""
        # To the CPU only now, for the copy waits for the accelerator; a clone, for it may be part of a larger prediction.
        patches = self.x_t.cpu().clone().unsqueeze(0)
        channels, patch_size = self._kind.channels, self._kind.patch_size
        return Latent(self.modality, unpatchify(patches, channels=channels, axes=self.axes, patch_size=patch_size)[0])


class SequenceState:
    """One request under way."""

    def __init__(self, config: ModelConfig, request: Request, options: SamplingOptions) -> None:
        self.config, self.request, self.options = config, request, options
        # Folded, so that a seed may be any integer; what counts of it are its last 64 bits.
        (self.generator,) = philox([seed_of(request.seed)])
        # Cache columns that hold what is committed; the next chunk is written behind them. A latent under way is not counted:
        # it is written over at every evaluation.
        self.length = 0
        self.noisy_latent: NoisyLatent | None = None
        self.done = False
        self._queue = deque(prefix_chunks(config, request.prefix))
        self._begins = {modality.begin_token_id: number for number, modality in enumerate(config.modalities)}
        self._num_tokens = self._num_latents = 0
        self._tokens: list[int] = []
        self._segments: list[Tensor | Latent] = []

    @property
    def completion(self) -> Completion:
        """What was generated so far."""
        return Completion(tuple(self._segments))

    def next_chunk(self) -> Chunk:
        """What to feed in the next pass."""
        return self.noisy_latent.chunk(ended=False) if self.noisy_latent else self._queue[0]

    def is_suppressed(self, modality: int) -> bool:
        """Whether the next token may not begin a latent of this kind."""
        return not self.request.shapes[modality] or self._num_latents >= self.request.max_latents

    def commit(self) -> bool:
        """The chunk that was fed stays in the cache. Returns whether a token is wanted next, to be chosen from its logits."""
        chunk = self._queue.popleft()
        self.length += chunk.size
        if self._queue:
            # More of the prefix follows, so these logits predict what is given.
            return False
        modality = None if chunk.last_token is None else self._begins.get(chunk.last_token)
        if modality is not None:
            axes = self.request.shapes[modality]
            self.noisy_latent = NoisyLatent(self.config, modality, axes, self.options, self.generator)
        elif self._wants_text:
            return True
        else:
            self._finish()
        return False

    def append_token(self, token: int) -> None:
        """Go on with the token that was chosen."""
        if token == self.config.eos_token_id:
            return self._finish()
        if token in self._begins:
            # Fed like any token; what it begins starts once its own keys and values are committed.
            self._close_text()
        else:
            self._tokens.append(token)
            self._num_tokens += 1
        # The last token is not fed, for nobody asks what follows it.
        if self._wants_text:
            self._queue.append(token_chunk(token))
        else:
            self._finish()

    def apply_prediction(self, prediction: Tensor) -> None:
        """Denoise one evaluation further. prediction: float32 [p, W], guided."""
        latent = self.noisy_latent
        assert latent is not None
        latent.x_t = latent.denoiser.advance(latent.x_t.to(prediction.device), prediction)
        if not latent.denoiser.done:
            return
        self.noisy_latent = None
        self._num_latents += 1
        self._segments.append(latent.result())
        if self._wants_text:
            # Clean now, at time 0: fed once more, it overwrites its noised keys and values.
            self._queue.append(latent.chunk(ended=True))
        else:
            self._finish()

    @property
    def _wants_text(self) -> bool:
        return self._num_tokens < self.request.max_new_tokens

    def _close_text(self) -> None:
        if self._tokens:
            self._segments.append(torch.tensor(self._tokens))
            self._tokens = []

    def _finish(self) -> None:
        self._close_text()
        self.done = True
