"""The buffers of a cache: as wide as their longest row needs, at least doubled when they grow, never wider than allowed."""

from __future__ import annotations

import torch

from model.generation.eager import TorchEngine
from model.step import StepInputs
from tests.model.conftest import tiny_model


def text_step(engine: TorchEngine, start: int, length: int) -> StepInputs:
    """One row that feeds `length` tokens from column `start` on."""
    column = torch.arange(start, start + length)[None]
    return StepInputs(
        input_ids=torch.full((1, length), 9),
        patches=torch.zeros(1, length, engine.config.patch_dim),
        token_type_ids=torch.zeros(1, length, dtype=torch.int64),
        time=torch.zeros(1),
        position_ids=column,
        kv_end=column,
        cache_position=torch.tensor([start]),
        logits_index=torch.tensor([length - 1]),
        kv_length=start + length,
        grids=((),),
    )


def test_a_cache_is_as_wide_as_its_longest_row_needs() -> None:
    engine = TorchEngine(tiny_model(), max_length=50)
    cache = engine.new_cache(3)
    assert cache.slots.num_columns == 0
    widths = []
    for start, length in ((0, 6), (6, 1), (7, 2), (9, 5), (14, 12), (26, 1), (27, 23)):
        engine.step(text_step(engine, start, length), cache, slice(1, 2))
        widths.append(cache.slots.num_columns)
    # Twice what there was, or what is asked where that is more, and all that is allowed at most.
    assert widths == [6, 12, 12, 24, 48, 48, 50]
    heads, width = engine.config.num_attention_heads, engine.config.head_dim
    assert {part.shape for pair in cache.slots.parts for part in pair} == {(3, heads, 50, width)}
    for keys, values in cache.slots.parts:
        for part in (keys, values):
            assert part[1].abs().amax((0, 2)).all(), "what was written before a growth is still there"
            assert not part[0].any() and not part[2].any()


def test_a_cpus_cache_is_float32_whatever_the_weights() -> None:
    engine = TorchEngine(tiny_model().bfloat16())
    cache = engine.new_cache(1)
    engine.step(text_step(engine, 0, 3), cache, slice(0, 1))
    assert {part.dtype for pair in cache.slots.parts for part in pair} == {torch.float32}
