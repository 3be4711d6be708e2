"""Proof that generation through the step graph sees what training saw: one interleaved document, both ways.

The document: a ragged text prefix, then for each modality a latent and text after it. Through an engine the prefix is
prefilled with right padding, each latent is denoised twice in place and then committed clean, and the text after it is fed
token by token. In torch it is one masked forward of the whole sequence, as in training. Equal numbers show that the cache,
the visibility rule, the stale padding, the overwriting of a latent's keys and values, and the choice of each position's
weights and patch layers are right together.

Legend: B rows, L sequence length, n patches of a latent, W numbers in a patch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from export.builder.parity import Difference, difference
from model.batch import Batch, Latents
from model.config import ModelConfig
from model.step import Engine, StepInputs
from model.transfusion import Transfusion

PREFIX_LENGTHS = (5, 9)
TIMES = (0.9, 0.4)
NUM_AFTER = 3
# Patches of a latent that is not the image.
OTHER_PATCHES = 4


class Segment(NamedTuple):
    """A latent and the text after it."""

    name: str
    """Of the latent's modality."""
    noised: tuple[Tensor, ...]
    """One for each of TIMES, float32 [B, n, W]."""
    clean: Tensor
    """float32 [B, n, W]."""
    after: Tensor
    """int64 [B, NUM_AFTER]: first the latent's end token, last the begin token of the next latent, if there is one."""


class ParityCase(NamedTuple):
    """A document a row."""

    prefixes: tuple[Tensor, ...]
    """Of each row, int64 [prefix length], ending in the first latent's begin token."""
    segments: tuple[Segment, ...]
    """One a modality."""


def end_to_end(model: Transfusion, engine: Engine, *, num_patches: int, seed: int) -> dict[str, Difference]:
    """Generate a random document through `engine` and compare with full forwards of `model`; what was compared -> how far.

    num_patches: of the first modality's latent.
    """
    case = _random_case(model.config, num_patches, seed)
    wanted, got = _through_forward(model, case), _through_engine(engine, case)
    return {name: difference(wanted[name], got[name]) for name in wanted}


def max_error(differences: Mapping[str, Difference]) -> float:
    """The largest absolute difference of an end-to-end comparison."""
    return max(entry.max_abs for entry in differences.values())


def case_length(config: ModelConfig, num_patches: int) -> int:
    """Positions of the longer of the two documents."""
    return max(PREFIX_LENGTHS) + sum(_sizes(config, num_patches)) + NUM_AFTER * len(config.modalities)


def _sizes(config: ModelConfig, num_patches: int) -> list[int]:
    return [num_patches, *[OTHER_PATCHES] * (len(config.modalities) - 1)]


def _random_case(config: ModelConfig, num_patches: int, seed: int) -> ParityCase:
    generator, num_rows = torch.Generator().manual_seed(seed), len(PREFIX_LENGTHS)
    begins = [modality.begin_token_id for modality in config.modalities]
    # The first five are control tokens, which would begin or end what is not there.
    prefixes = tuple(torch.randint(5, config.vocab_size, (length,), generator=generator) for length in PREFIX_LENGTHS)
    for prefix in prefixes:
        prefix[0], prefix[-1] = config.bos_token_id, begins[0]
    segments = []
    for number, (modality, size) in enumerate(zip(config.modalities, _sizes(config, num_patches), strict=True)):
        shape = (num_rows, size, modality.patch_dim)
        after = torch.randint(5, config.vocab_size, (num_rows, NUM_AFTER), generator=generator)
        after[:, 0] = modality.end_token_id
        if number + 1 < len(begins):
            after[:, -1] = begins[number + 1]
        *noised, clean = (torch.randn(shape, generator=generator) for _ in range(len(TIMES) + 1))
        segments.append(Segment(modality.name, tuple(noised), clean, after))
    return ParityCase(prefixes, tuple(segments))


def _at_time(name: str, time: float) -> str:
    return f"{name} at noise {time}"


def _after(name: str, index: int) -> str:
    return f"logits after {name}, token {index}"


# ---- through an engine


def _through_engine(engine: Engine, case: ParityCase) -> dict[str, Tensor]:
    """Predictions [B, n, W] of each latent at each noise level, and logits [B, V] after each later token."""
    config, found = engine.config, dict[str, Tensor]()
    end = torch.tensor([len(prefix) for prefix in case.prefixes])
    # Two slots below stay empty, so that a slice of the cache is what is written.
    rows = slice(2, 2 + len(end))
    cache = engine.new_cache(rows.stop)
    # The shorter prefix's padding is written into its slots as well; nothing may see it before it is overwritten.
    engine.step(_text(config, pad_sequence(list(case.prefixes), batch_first=True), torch.zeros_like(end)), cache, rows)
    for number, segment in enumerate(case.segments):
        # `end` stays where it is: each noise level overwrites the keys and values before it, as does the clean latent.
        for noised, time in zip(segment.noised, TIMES, strict=True):
            output = engine.step(_latent(config, number, noised, time, end), cache, rows)
            found[_at_time(segment.name, time)] = output.prediction[..., : noised.shape[-1]]
        engine.step(_latent(config, number, segment.clean, 0.0, end), cache, rows)
        end = end + segment.clean.shape[1]
        for index, token in enumerate(segment.after.split(1, dim=1)):
            found[_after(segment.name, index)] = engine.step(_text(config, token, end), cache, rows).logits
            end = end + 1
    return found


def _text(config: ModelConfig, ids: Tensor, cache_position: Tensor) -> StepInputs:
    column = cache_position.unsqueeze(1) + torch.arange(ids.shape[1])
    return _inputs(ids, torch.zeros(*ids.shape, config.patch_dim), 0, 0.0, column, column)


def _latent(config: ModelConfig, number: int, patches: Tensor, time: float, cache_position: Tensor) -> StepInputs:
    column = cache_position.unsqueeze(1) + torch.arange(patches.shape[1])
    patches = pad(patches, (0, config.patch_dim - patches.shape[-1]))
    return _inputs(torch.zeros_like(column), patches, number + 1, time, column, column[:, -1:].expand_as(column))


def _inputs(ids: Tensor, patches: Tensor, kind: int, time: float, column: Tensor, kv_end: Tensor) -> StepInputs:
    num_rows, length = ids.shape
    return StepInputs(
        input_ids=ids,
        patches=patches,
        token_type_ids=torch.full_like(ids, kind),
        time=torch.full((num_rows,), time),
        position_ids=column,
        kv_end=kv_end,
        cache_position=column[:, 0],
        logits_index=torch.full((num_rows,), length - 1),
        kv_length=int(column.max()) + 1,
        grids=((length,) if kind else (),) * num_rows,
    )


# ---- through the training forward


@torch.inference_mode()
def _through_forward(model: Transfusion, case: ParityCase) -> dict[str, Tensor]:
    """The same numbers by full forwards: one for each latent at each noise level, the others clean, and one all clean."""
    found: dict[str, Tensor] = {}
    clean = [segment.clean for segment in case.segments]
    for number, segment in enumerate(case.segments):
        for noised, time in zip(segment.noised, TIMES, strict=True):
            patches, times = list(clean), [0.0] * len(clean)
            patches[number], times[number] = noised, time
            prediction = model(_batch(case), *_noised(patches, times)).predictions[number]
            found[_at_time(segment.name, time)] = prediction.view(noised.shape)
    hidden = model.hidden(_batch(case), *_noised(clean, [0.0] * len(clean)))
    start = torch.tensor([len(prefix) for prefix in case.prefixes]) + torch.arange(len(case.prefixes)) * _length(case)
    for segment in case.segments:
        start = start + segment.clean.shape[1]
        for index in range(NUM_AFTER):
            found[_after(segment.name, index)] = model.head(hidden.states[start + index]).float()
        start = start + NUM_AFTER
    return found


def _noised(patches: Sequence[Tensor], times: Sequence[float]) -> tuple[list[Tensor], list[Tensor]]:
    """The forward's patches [P, W] and times [M], one of each a modality."""
    level = [torch.full((len(part),), time) for part, time in zip(patches, times, strict=True)]
    return [part.flatten(0, 1) for part in patches], level


def _length(case: ParityCase) -> int:
    return max(len(prefix) for prefix in case.prefixes) + sum(segment.clean.shape[1] + NUM_AFTER for segment in case.segments)


def _batch(case: ParityCase) -> Batch:
    """Both documents as training sees them, a row each; nothing is to be predicted."""
    num_rows, length = len(case.prefixes), _length(case)
    none = torch.zeros(0, dtype=torch.int64)
    ids = torch.zeros(num_rows, length, dtype=torch.int64)
    column = torch.arange(length).expand(num_rows, -1)
    last, start, latents = column.clone(), torch.tensor([len(prefix) for prefix in case.prefixes]).unsqueeze(1), []
    for row, prefix in enumerate(case.prefixes):
        ids[row, : len(prefix)] = prefix
    for segment in case.segments:
        size = segment.clean.shape[1]
        block = start + torch.arange(size)
        # A patch sees its latent to the end, text sees itself: written anew here, and not taken from what the engine uses.
        last.scatter_(1, block, block[:, -1:].expand_as(block))
        start = start + size
        ids.scatter_(1, start + torch.arange(NUM_AFTER), segment.after)
        start = start + NUM_AFTER
        latents.append(
            Latents(
                patches=segment.clean.flatten(0, 1),
                patch_positions=(block + length * torch.arange(num_rows).unsqueeze(1)).flatten(),
                latent_index=torch.arange(num_rows).repeat_interleave(size),
                sample_index=torch.arange(num_rows),
                time_limit=torch.ones(num_rows),
                grids=((size,),) * num_rows,
            )
        )
    first = torch.zeros(num_rows, length, dtype=torch.int32)
    return Batch(ids, column, first, last.int(), tuple(latents), none, none, none.bool())
