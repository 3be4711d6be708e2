"""What generation should give, without a cache: for every token and every evaluation of a solver one forward over
the whole sequence, and for guidance one over the begin token and the latent alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from core.random import seed_of
from model.batch import Batch, Latents
from model.config import ModelConfig
from model.diffusion.solvers import Denoiser
from model.generation.requests import Completion, Latent, Request, SamplingOptions
from model.latents.patches import patchify
from model.transfusion import Transfusion


class Placed(NamedTuple):
    """A latent in a document. patches: [n, W]."""

    modality: int
    patches: Tensor
    grid: tuple[int, ...]
    time: float


class Sight(NamedTuple):
    """states: [D] and logits: [V] of the last position. prediction: [n, W] of the last latent."""

    states: Tensor
    logits: Tensor
    prediction: Tensor


@torch.inference_mode()
def look(model: Transfusion, document: Sequence[int | Placed]) -> Sight:
    """One uncached forward over a document."""
    ids: list[int] = []
    last: list[int] = []
    held: list[list[tuple[Placed, int]]] = [[] for _ in model.config.modalities]
    for part in document:
        start = len(ids)
        size = 1 if isinstance(part, int) else len(part.patches)
        ids += [part if isinstance(part, int) else 0] * size
        last += [start + size - 1] * size
        if not isinstance(part, int):
            held[part.modality].append((part, start))
    latents = []
    for modality, parts in zip(model.config.modalities, held, strict=True):
        sizes = [len(part.patches) for part, _ in parts]
        latents.append(
            Latents(
                patches=torch.cat([part.patches for part, _ in parts] or [torch.zeros(0, modality.patch_dim)]),
                patch_positions=torch.tensor(
                    [start + i for part, start in parts for i in range(len(part.patches))], dtype=torch.long
                ),
                latent_index=torch.tensor([i for i, size in enumerate(sizes) for _ in range(size)], dtype=torch.long),
                sample_index=torch.arange(len(parts)),
                time_limit=torch.ones(len(parts)),
                grids=tuple(part.grid for part, _ in parts),
            )
        )
    length = len(ids)
    batch = Batch(
        input_ids=torch.tensor([ids]),
        position_ids=torch.arange(length).unsqueeze(0),
        kv_start=torch.zeros(1, length, dtype=torch.int32),
        kv_end=torch.tensor([last], dtype=torch.int32),
        latents=tuple(latents),
        loss_positions=torch.zeros(1, dtype=torch.long),
        labels=torch.zeros(1, dtype=torch.long),
        after_image=torch.zeros(1, dtype=torch.bool),
    )
    x_t = [part.patches for part in latents]
    times = [torch.tensor([part.time for part, _ in parts]) for parts in held]
    states = model.hidden(batch, x_t, times).states[-1]
    logits = model.head(states)
    final = next((part for part in reversed(document) if not isinstance(part, int)), None)
    if final is None:
        return Sight(states, logits, torch.zeros(0))
    return Sight(states, logits, model(batch, x_t, times).predictions[final.modality][-len(final.patches) :])


def denoise(
    model: Transfusion,
    document: list[int | Placed],
    axes: tuple[int, ...],
    options: SamplingOptions,
    generator: np.random.Generator,
) -> Placed:
    """The clean latent after a document that ends in a begin token."""
    begin = document[-1]
    (number,) = [index for index, each in enumerate(model.config.modalities) if each.begin_token_id == begin]
    modality = model.config.modalities[number]
    grid = tuple(length // side for length, side in zip(axes, modality.patch_size, strict=True))
    x = torch.from_numpy(generator.standard_normal((math.prod(grid), modality.patch_dim), dtype=np.float32))
    added = torch.Generator().manual_seed(int(generator.integers(2**63)))
    denoiser = Denoiser(model.config.process, options.solver, options.num_steps, added)
    while not denoiser.done:
        part = Placed(number, x, grid, denoiser.time)
        prediction = look(model, [*document, part]).prediction
        low, high = options.guidance_interval
        if options.guidance_scale != 1 and low <= denoiser.time <= high:
            alone = look(model, [begin, part]).prediction
            prediction = alone + options.guidance_scale * (prediction - alone)
        x = denoiser.advance(x, prediction)
    return Placed(number, x, grid, 0.0)


def reference(model: Transfusion, request: Request, options: SamplingOptions) -> list[list[int] | Placed]:
    """What a request should give, at temperature 0: texts and clean latents."""
    config, generator = model.config, np.random.Generator(np.random.Philox(key=seed_of(request.seed)))
    document: list[int | Placed] = []
    for part in request.prefix:
        if isinstance(part, Latent):
            modality = config.modalities[part.modality]
            grid = tuple(length // side for length, side in zip(part.values.shape[1:], modality.patch_size, strict=True))
            placed = Placed(part.modality, patchify(part.values.unsqueeze(0), modality.patch_size)[0], grid, 0.0)
            document += [modality.begin_token_id, placed, modality.end_token_id]
        else:
            document += part.tolist()
    begins = {modality.begin_token_id: number for number, modality in enumerate(config.modalities)}
    done: list[list[int] | Placed] = []
    text: list[int] = []
    num_tokens = num_latents = 0
    while True:
        if isinstance(begin := document[-1], int) and begin in begins:
            number = begins[begin]
            placed = denoise(model, document, request.shapes[number], options, generator)
            done += [*([text] if text else []), placed]
            text, num_latents = [], num_latents + 1
            document += [placed, config.modalities[number].end_token_id]
        if num_tokens == request.max_new_tokens:
            break
        logits = look(model, document).logits.clone()
        logits[[config.pad_token_id, config.bos_token_id, *(modality.end_token_id for modality in config.modalities)]] = -float(
            "inf"
        )
        for begin, number in begins.items():
            if not request.shapes[number] or num_latents == request.max_latents:
                logits[begin] = -float("inf")
        token = int(logits.argmax())
        if token == config.eos_token_id:
            break
        document.append(token)
        if token not in begins:
            text, num_tokens = [*text, token], num_tokens + 1
    return [*done, *([text] if text else [])]


def assert_equal(config: ModelConfig, completion: Completion, wanted: list[list[int] | Placed]) -> None:
    """Equal texts; latents within 1e-5 of their scale, for an untrained model's numbers may be large."""
    assert len(completion.segments) == len(wanted)
    for got, want in zip(completion.segments, wanted, strict=True):
        if isinstance(want, list):
            assert not isinstance(got, Latent)
            assert got.tolist() == want
        else:
            assert isinstance(got, Latent)
            assert got.modality == want.modality
            patches = patchify(got.values.unsqueeze(0), config.modalities[want.modality].patch_size)[0]
            torch.testing.assert_close(patches, want.patches, rtol=1e-5, atol=1e-5 * max(1.0, float(want.patches.abs().max())))
