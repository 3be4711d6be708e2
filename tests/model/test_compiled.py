"""A compiled model computes what the plain one does, without compiling again for every batch."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from model.batch import Batch
from model.compiled import compile_for_training, compiled_losses
from model.config import ModelConfig
from model.loss import loss_sums
from model.loss_options import PLAIN
from model.token_loss import losses_to_compile, token_loss
from model.transfusion import Transfusion
from tests.model.conftest import pack, random_document, tiny_model


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def num_graphs() -> int:
    return counters["stats"]["unique_graphs"]


def random_batch(rng: random.Random, config: ModelConfig, num_rows: int = 2, length: int = 96) -> Batch:
    """Of more than one patch, because an expert of a single position is compiled for itself."""
    rows = [[random_document(rng, rng.randrange(3)) for _ in range(2)] for _ in range(num_rows)]
    rows[0].append(random_document(rng, 1))
    batch = pack(rows, config, length, seed=rng.randrange(2**31))
    return batch if len(batch.latents[0].patch_positions) > 1 else random_batch(rng, config, num_rows, length)


def losses_and_gradients(model: Transfusion, batch: Batch) -> tuple[list[float], list[Tensor]]:
    model.zero_grad()
    sums = loss_sums(model, batch, 0, 1, PLAIN)
    (sums.text + 2 * sums.image).backward()
    return [sums.text.item(), sums.image.item()], [torch.zeros(1) if p.grad is None else p.grad for p in model.parameters()]


# Code is generated once, for that takes seconds; what is compiled when is the same without.
@pytest.mark.parametrize(("experts", "backend"), [("shared", "inductor"), ("feed_forward", "aot_eager"), ("full", "aot_eager")])
def test_losses_and_gradients_are_the_plain_models(experts: str, backend: str, rng: random.Random) -> None:
    plain = tiny_model(experts=experts, qk_norm=experts == "full", num_hidden_layers=3).train()
    compiled = copy.deepcopy(plain)
    compile_for_training(compiled, backend=backend)
    graphs_after: list[int] = []
    for _ in range(4):
        batch = random_batch(rng, plain.config)
        wanted, found = losses_and_gradients(plain, batch), losses_and_gradients(compiled, batch)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)
        graphs_after.append(num_graphs())
    # One before attention and one after it for all layers and experts, one for the text's loss, and not one more for another
    # layout; but on a CPU attention under the dense mask, which some layouts take, may leave its output in another order.
    assert graphs_after[0] == 3 and max(graphs_after) <= 4
    assert compiled.state_dict().keys() == plain.state_dict().keys()


def test_a_copy_has_weights_of_its_own(rng: random.Random) -> None:
    compiled = tiny_model().train()
    compile_for_training(compiled, backend="aot_eager")
    batch = random_batch(rng, compiled.config)
    before = losses_and_gradients(compiled, batch)[0]
    copied = copy.deepcopy(compiled)
    for parameter in copied.parameters():
        nn.init.zeros_(parameter)
    assert losses_and_gradients(compiled, batch)[0] == before
    assert losses_and_gradients(copied, batch)[0] != before
    assert num_graphs() == 3


def test_hidden_states_in_half_precision_are_so_between_blocks_and_learn_alike(rng: random.Random) -> None:
    plain = tiny_model(num_hidden_layers=3).train()
    half = copy.deepcopy(plain)
    half.hidden_dtype = torch.bfloat16
    compile_for_training(half, backend="aot_eager")
    seen: list[torch.dtype] = []
    for block in half.transformer.blocks:
        block.register_forward_pre_hook(lambda block, given: seen.append(given[0].dtype))
    batch = random_batch(rng, plain.config)
    with torch.autocast("cpu", torch.bfloat16):
        (wanted, _), (found, gradients) = (losses_and_gradients(model, batch) for model in (plain, half))
    assert seen == [torch.bfloat16] * 3
    assert found == pytest.approx(wanted, rel=0.05) and found != wanted
    assert all(each.dtype == torch.float32 and each.isfinite().all() for each in gradients)


@pytest.mark.parametrize("num_tokens", [0, 1, 7, 8, 24, 29])
def test_text_loss_by_pieces_is_the_loss_by_the_definition(num_tokens: int, rng: random.Random) -> None:
    torch.manual_seed(rng.randrange(2**31))
    hidden = torch.randn(num_tokens, 16, requires_grad=True)
    head = torch.randn(40, 16, requires_grad=True)
    target = torch.randint(40, (num_tokens,))
    weight = torch.rand(2, num_tokens)
    found = token_loss(hidden, head, target, losses=compiled_losses(losses_to_compile), max_logits=8 * 40 + 3)
    gradients = torch.autograd.grad((torch.stack(list(found)) * weight).sum(), [hidden, head])

    exact_hidden, exact_head = (each.detach().double().requires_grad_() for each in (hidden, head))
    log_normaliser = (exact_hidden @ exact_head.T).exp().sum(-1).log()
    cross_entropy = log_normaliser - (exact_hidden * exact_head[target]).sum(-1)
    wanted = torch.autograd.grad((torch.stack([cross_entropy, log_normaliser]) * weight).sum(), [exact_hidden, exact_head])
    torch.testing.assert_close(found.cross_entropy, cross_entropy.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.log_normaliser, log_normaliser.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients, tuple(each.float() for each in wanted), rtol=1e-4, atol=1e-5)
