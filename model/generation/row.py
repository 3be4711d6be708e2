"""How does one request go on? What it feeds next, and what it makes of the answer: text, or a latent on its way from noise.

Transfusion (arXiv 2408.11039, Sec. 3.4): text token by token; on a begin token a block of noise is denoised in place against
the cached prefix; then the end token, and text goes on. With the end token goes the *clean* latent once more, overwriting the
block's keys and values, so that later text sees the latent itself and not its last noised state.

Legend: n patches of a latent, W numbers in its patch.
"""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor

from model.config import ModelConfig
from model.diffusion.solvers import Denoiser
from model.generation.blocks import Block, token_block
from model.generation.prefix import grid_of, latent_block, prefix_blocks
from model.generation.requests import Completion, Latent, Request, SamplingOptions
from model.latents.patches import join


class _Denoising:
    """A latent under way. noised: float32 [n, W], where the engine's predictions are."""

    def __init__(self, config: ModelConfig, modality: int, row: Row) -> None:
        self.modality, self.axes = modality, row.request.shapes[modality]
        self.grid = grid_of(config, modality, self.axes)
        size = (math.prod(self.grid), config.modalities[modality].patch_width)
        self.noised = torch.randn(size, generator=row.generator)
        self.denoiser = Denoiser(config.process, row.options.solver, row.options.num_steps, row.generator)


class Row:
    """One request under way.

    length: cache columns that hold what is settled; the next block is written behind them. latent: the one being denoised.
    done: nothing is left to feed.
    """

    def __init__(self, config: ModelConfig, request: Request, options: SamplingOptions) -> None:
        self.config, self.request, self.options = config, request, options
        self.generator = torch.Generator().manual_seed(request.seed)
        self.length = 0
        self.latent: _Denoising | None = None
        self.done = False
        self._queue = deque(prefix_blocks(config, request.prefix))
        self._begins = {modality.begin_id: number for number, modality in enumerate(config.modalities)}
        self._num_tokens = self._num_latents = 0
        self._tokens: list[int] = []
        self._segments: list[Tensor | Latent] = []

    @property
    def completion(self) -> Completion:
        return Completion(tuple(self._segments))

    def next_block(self) -> Block:
        """What to feed in the next pass."""
        if self.latent is None:
            return self._queue[0]
        latent = self.latent
        return latent_block(self.config, latent.modality, latent.noised, latent.grid, latent.denoiser.time, ended=False)

    def is_barred(self, modality: int) -> bool:
        """Whether the next token may not begin a latent of this kind."""
        return not self.request.shapes[modality] or self._num_latents >= self.request.max_latents

    def settle(self) -> bool:
        """The block that was fed stays. Whether a token is wanted, chosen from its logits."""
        block = self._queue.popleft()
        self.length += block.size
        if self._queue:
            return False
        if block.last_token in self._begins:
            self.latent = _Denoising(self.config, self._begins[block.last_token], self)
        elif self._wants_text:
            return True
        else:
            self._finish()
        return False

    def take_token(self, token: int) -> None:
        """Go on with the token that was chosen."""
        if token == self.config.eos_id:
            return self._finish()
        if token in self._begins:
            self._close_text()
        else:
            self._tokens.append(token)
            self._num_tokens += 1
        # The last token is not fed, for nobody asks what follows it.
        if self._wants_text:
            self._queue.append(token_block(token))
        else:
            self._finish()

    def take_prediction(self, prediction: Tensor) -> None:
        """Denoise one evaluation further. prediction: float32 [n, W], guided."""
        latent = self.latent
        assert latent is not None
        latent.noised = latent.denoiser.advance(latent.noised.to(prediction.device), prediction)
        if not latent.denoiser.done:
            return
        self.latent = None
        self._num_latents += 1
        modality = self.config.modalities[latent.modality]
        # To the CPU only now, for the copy waits for the accelerator; a clone, for it may be part of a larger prediction.
        patches = latent.noised.cpu().clone().unsqueeze(0)
        values = join(patches, channels=modality.channels, axes=latent.axes, patch=modality.patch)[0]
        self._segments.append(Latent(latent.modality, values))
        if self._wants_text:
            self._queue.append(latent_block(self.config, latent.modality, latent.noised, latent.grid, 0.0, ended=True))
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
