"""One tick's chunks, batched into forward passes: which rows share a pass, and the inputs of its step.

An engine runs contiguous slots, every row padded to the longest chunk among them. So a tick's passes are ranges of slots, and
the cheapest way to cut is found exactly, one slot after the other: all rows share a pass, unless padding would cost more than a
pass of its own, or does not fit.

Chunks of different length are padded on the right: a row's padding is written beyond its end, sees no more than its own
columns, and is overwritten before anyone sees it.

Legend: B rows, S positions a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from model.config import ModelConfig
from model.generation.sequence import Chunk, LatentSpan
from model.step import StepInputs

# What a pass costs beside its positions, counted in positions: its weights are read and its kernels started once more. At
# hidden size 512 that is about 100 on a CPU; on an accelerator from 100 (a large model) to some thousands (a small one).
PASS_COST = 256
# The active cache window grows in these strides, so that an engine meets few shapes.
WINDOW_STRIDE = 32


def cheapest_passes(sizes: Mapping[int, int], ends: Sequence[int], max_length: int) -> list[range]:
    """Ranges of slots, each a pass, that together hold every slot of `sizes` once.

    sizes: positions that a slot feeds. ends: for every slot the first column that may be overwritten; also a slot that feeds
    nothing writes there when it lies in a pass. max_length: columns of a slot; each slot's own positions must fit.
    """
    slots = sorted(sizes)
    if len(set(sizes.values())) == 1 and slots[-1] - slots[0] + 1 == len(slots):
        return [range(slots[0], slots[-1] + 1)]
    # The cheapest way for the first slots: its cost, and where its last pass begins.
    cheapest: list[tuple[int, int]] = [(0, 0)]
    for stop, last in enumerate(slots, start=1):
        options: list[tuple[int, int]] = []
        longest, furthest = 0, 0
        above = last + 1
        for start in range(stop - 1, -1, -1):
            first = slots[start]
            longest = max(longest, sizes[first])
            furthest = max(furthest, *ends[first:above])
            above = first
            # A slot alone always fits; together the longest chunk might run over the end of the fullest slot.
            if furthest + longest > max_length and start < stop - 1:
                break
            options.append((cheapest[start][0] + PASS_COST + (last + 1 - first) * longest, start))
        cheapest.append(min(options))
    passes: list[range] = []
    stop = len(slots)
    while stop:
        start = cheapest[stop][1]
        passes.append(range(slots[start], slots[stop - 1] + 1))
        stop = start
    return passes[::-1]


def step_inputs(config: ModelConfig, chunks: Sequence[Chunk | None], starts: Sequence[int], max_length: int) -> StepInputs:
    """The inputs of one step. chunks: of each row; None where it only rides along. starts: first column each row writes."""
    ids = [chunk.ids if chunk else torch.zeros(0, dtype=torch.long) for chunk in chunks]
    length, cache_position = max(map(len, ids)), torch.tensor(starts)
    # Positions are columns: a slot holds one sequence from its first column on.
    column = cache_position.unsqueeze(1) + torch.arange(length)
    token_type_ids, kv_end = torch.zeros_like(column), column.clone()
    latents = [(row, latent) for row, chunk in enumerate(chunks) if chunk for latent in chunk.latents]
    # Latents stay where they are: on an accelerator, nothing waits for a copy.
    patches = torch.zeros(len(chunks), length, config.patch_dim, device=_device(latent for _, latent in latents))
    for row, latent in latents:
        at = slice(latent.start, latent.stop)
        patches[row, at, : latent.patches.shape[1]] = latent.patches
        token_type_ids[row, at] = latent.modality + 1
        # Patches see their whole latent, also what of it stands behind them.
        kv_end[row, at] = starts[row] + latent.stop - 1
    return StepInputs(
        input_ids=pad_sequence(ids, batch_first=True, padding_value=config.pad_token_id),
        patches=patches,
        token_type_ids=token_type_ids,
        time=torch.tensor([chunk.time if chunk else 0.0 for chunk in chunks]),
        position_ids=column,
        kv_end=kv_end,
        cache_position=cache_position,
        # The last of each row's own, which predicts what follows; a row that rides along has none, and nobody reads its logits.
        logits_index=torch.tensor([max(len(row) - 1, 0) for row in ids]),
        kv_length=min(-(-(max(starts) + length) // WINDOW_STRIDE) * WINDOW_STRIDE, max_length),
        grids=tuple(chunk.latents[0].grid if chunk and chunk.latents else () for chunk in chunks),
    )


def _device(latents: Iterable[LatentSpan]) -> torch.device:
    """The accelerator that some of the latents are on, if any."""
    devices = {latent.patches.device for latent in latents}
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))
