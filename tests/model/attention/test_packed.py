"""The ways to attend agree with brute force, forward and backward, on packed rows of any layout."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from model.attention.flex import BLOCK, block_mask, packed_flex_attention
from model.attention.packed import Attend, document_attention, find_documents, masked_attention, packed_attention
from model.attention.visibility import visible
from tests.model.conftest import pack, random_document, tiny_config

NUM_LAYOUTS = 200


def _random_intervals(
    rng: random.Random, *, num_documents: int = 5, length: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """first and last of packed rows: several documents a row, some captions hidden from their image, padding at the end."""
    rows = [
        [random_document(rng, rng.randrange(3)) for _ in range(rng.randrange(1, num_documents))]
        for _ in range(rng.randrange(1, 4))
    ]
    length = length or max(sum(map(len, row)) for row in rows) + rng.randrange(4)
    batch = pack(rows, tiny_config(), length)
    kv_start, kv_end = batch.kv_start.clone(), batch.kv_end
    for row in range(len(rows)):
        if rng.random() < 0.5:
            # As under caption dropout: an image and its marker see nothing before the marker.
            marker = (batch.input_ids[row] == 3).nonzero().flatten().tolist()
            for at in marker:
                kv_start[row, at : int(kv_end[row, at + 1]) + 1] = at
    return kv_start, kv_end


def _brute_force(kv_start: torch.Tensor, kv_end: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor):
    """Softmax over each query's interval, written out in float64."""
    query, key, value = query.double(), key.double(), value.double()
    scores = torch.einsum("bhqk,bhnk->bhqn", query, key) / query.shape[-1] ** 0.5
    for row, at in itertools.product(range(query.shape[0]), range(query.shape[2])):
        scores[row, :, at, : int(kv_start[row, at])] = float("-inf")
        scores[row, :, at, int(kv_end[row, at]) + 1 :] = float("-inf")
    return torch.einsum("bhqn,bhnk->bhqk", scores.softmax(-1), value)


def _inputs(kv_start: torch.Tensor, seed: int, width: int = 4) -> list[torch.Tensor]:
    shape = (*kv_start.shape[:1], 2, kv_start.shape[1], width)
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(kv_start.device).requires_grad_() for _ in range(3)]


def _compare(attend: Attend, expected: torch.Tensor, inputs: list[torch.Tensor], tolerance: float = 1e-5) -> None:
    """Values, and gradients of a sum with unequal weights."""
    out = attend(0, *inputs)
    torch.testing.assert_close(out.double(), expected.detach(), rtol=tolerance, atol=tolerance)
    weight = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
    wanted = torch.autograd.grad((expected * weight).sum(), inputs, retain_graph=True)
    for one, other in zip(torch.autograd.grad((out * weight).sum(), inputs), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=10 * tolerance, atol=tolerance)


def test_masked_and_document_attention_agree_with_brute_force_forward_and_backward(rng: random.Random) -> None:
    for number in range(NUM_LAYOUTS):
        kv_start, kv_end = _random_intervals(rng)
        inputs = _inputs(kv_start, number)
        expected = _brute_force(kv_start, kv_end, *inputs)
        _compare(masked_attention(kv_start, kv_end), expected, inputs)
        _compare(document_attention(kv_start, kv_end), expected, inputs)


def test_packed_attention_agrees_with_brute_force_whichever_way_it_takes(rng: random.Random) -> None:
    """Rows of one document, where sorting saves nothing, and rows of many."""
    ways = set()
    for number in range(NUM_LAYOUTS // 4):
        kv_start, kv_end = _random_intervals(rng, num_documents=2 if number % 2 else 9)
        inputs = _inputs(kv_start, number)
        attend = packed_attention(kv_start, kv_end)
        ways.add(attend.__qualname__)
        _compare(attend, _brute_force(kv_start, kv_end, *inputs), inputs)
    assert len(ways) == 2


def test_flexible_attention_agrees_with_brute_force(rng: random.Random) -> None:
    """Forward; on a CPU it has no backward pass."""
    for number in range(NUM_LAYOUTS):
        kv_start, kv_end = _random_intervals(rng, num_documents=30 if number % 10 == 0 else 5)
        query, key, value = (part.detach() for part in _inputs(kv_start, number, width=16))
        out = packed_flex_attention(kv_start, kv_end)(0, query, key, value)
        torch.testing.assert_close(out.double(), _brute_force(kv_start, kv_end, query, key, value), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_flexible_attention_agrees_with_brute_force_forward_and_backward_on_a_gpu(rng: random.Random) -> None:
    for number in range(NUM_LAYOUTS):
        kv_start, kv_end = (part.cuda() for part in _random_intervals(rng, length=256))
        inputs = _inputs(kv_start, number, width=16)
        _compare(
            packed_flex_attention(kv_start, kv_end), _brute_force(kv_start.cpu(), kv_end.cpu(), *inputs), inputs, tolerance=1e-3
        )


def test_block_masks_name_the_blocks_that_hold_anything(rng: random.Random) -> None:
    for _ in range(20):
        kv_start, kv_end = _random_intervals(rng, num_documents=40)
        mask, size = block_mask(kv_start, kv_end), kv_start.shape[1]
        seen = visible(kv_start, kv_end, size)
        starts = range(0, size, BLOCK)
        for row, (q, start), (k, key_start) in itertools.product(range(len(kv_start)), enumerate(starts), enumerate(starts)):
            block = seen[row, start : start + BLOCK, key_start : key_start + BLOCK]
            whole = _names(mask.full_kv_num_blocks, mask.full_kv_indices, row, q, k)
            partly = _names(mask.kv_num_blocks, mask.kv_indices, row, q, k)
            assert not (whole and partly)
            assert not whole or bool(block.all())
            assert whole or partly or not bool(block.any())


def _names(count: torch.Tensor | None, indices: torch.Tensor | None, row: int, query: int, key: int) -> bool:
    assert count is not None and indices is not None
    return key in indices[row, 0, query, : int(count[row, 0, query])].tolist()


def test_rows_are_cut_only_where_nothing_sees_across(rng: random.Random) -> None:
    for _ in range(50):
        kv_start, kv_end = _random_intervals(rng)
        found, length = find_documents(kv_start, kv_end), kv_start.shape[1]
        assert int(found.length.sum()) == kv_start.numel()
        for start, size in zip(found.start.tolist(), found.length.tolist(), strict=True):
            row, begin = divmod(start, length)
            assert int(kv_start[row, begin : begin + size].min()) >= begin
            assert int(kv_end[row, begin : begin + size].max()) < begin + size
            # It could not have been cut once more.
            for cut in range(begin + 1, begin + size):
                assert int(kv_start[row, cut : begin + size].min()) < cut or int(kv_end[row, begin:cut].max()) >= cut


def test_on_a_gpu_only_training_takes_the_kernel_that_is_compiled_for_each_shape(rng: random.Random) -> None:
    """Tensors without values, which know that they would be on a GPU."""
    kv_start, kv_end = _random_intervals(rng)
    with FakeTensorMode():
        start, end = (torch.empty(part.shape, dtype=part.dtype, device="cuda") for part in (kv_start, kv_end))
        assert start.is_cuda
        with torch.no_grad():
            assert packed_attention(start, end).__qualname__.startswith("masked_attention")
