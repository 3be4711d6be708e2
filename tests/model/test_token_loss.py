"""The cross-entropy in pieces is the whole one, in values and gradients, and no more logits exist at once."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from model.token_loss import MAX_LOGITS, room_for_logits, token_loss


class _LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operator makes."""

    def __init__(self) -> None:
        super().__init__()
        self.num_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, (tuple, list)) else [out]
        self.num_elements = max([self.num_elements, *(each.numel() for each in made if isinstance(each, torch.Tensor))])
        return out


def test_pieces_equal_the_whole_and_stay_small(rng: random.Random) -> None:
    num_tokens, width, vocabulary = rng.randrange(40, 80), 8, 96
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    hidden = torch.randn(num_tokens, width, generator=generator, requires_grad=True)
    head = torch.randn(vocabulary, width, generator=generator, requires_grad=True)
    target = torch.randint(vocabulary, (num_tokens,), generator=generator)
    weight = torch.rand(num_tokens, generator=generator)

    logits = hidden @ head.T
    expected = F.cross_entropy(logits, target, reduction="none") @ weight + 0.1 * logits.logsumexp(-1).square().sum()
    wanted = torch.autograd.grad(expected, (hidden, head))

    limit = 10 * vocabulary
    with _LargestTensor() as seen:
        losses = token_loss(hidden, head, target, max_logits=limit)
        total = losses.cross_entropy @ weight + 0.1 * losses.log_normaliser.square().sum()
        got = torch.autograd.grad(total, (hidden, head))
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert seen.num_elements <= limit < num_tokens * vocabulary


@pytest.mark.parametrize(("gibibytes", "least"), [(80, 2**30), (139, 2**31), (1, MAX_LOGITS)])
def test_a_gpu_with_memory_takes_the_logits_whole(gibibytes: int, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """32,768 predicted tokens of a vocabulary of 32,768 are 2^30 logits."""
    properties = SimpleNamespace(total_memory=gibibytes * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert least <= room_for_logits(torch.device("cuda")) < 2 * least
    assert room_for_logits(torch.device("cpu")) == MAX_LOGITS
