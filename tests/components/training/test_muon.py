"""Muon is torch's own up to bfloat16, makes matrices orthogonal, and is the same however many workers share them."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from torch import nn

from components.runtime.world import World
from components.training.muon import Muon, dealt_out, num_products, orthogonalised
from components.training.transformer.optimiser import build_optimisers
from components.training.transformer.state import configuration
from model.transfusion import Transfusion
from tests.components.training.conftest import CONFIG, Corpus, changed

ALONE = World(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("shape", [(24, 24), (40, 24), (24, 72)])
def test_singular_values_end_near_one_and_their_vectors_stay(shape: tuple[int, int]) -> None:
    seed = random.randrange(2**31)
    print("seed", seed)
    torch.manual_seed(seed)
    # Singular values of 1 to 300, as gradients have, and of any size as a whole.
    left, _ = torch.linalg.qr(torch.randn(shape[0], 24))
    right, _ = torch.linalg.qr(torch.randn(shape[1], 24))
    matrix = 1e-4 * (left * torch.logspace(0, 2.5, 24)) @ right.T
    found = left.T @ orthogonalised(matrix, torch.float32) @ right
    values = found.diagonal()
    assert ((values > 0.4) & (values < 1.3)).all(), values
    assert (found - torch.diag(values)).abs().max() < 1e-3
    torch.testing.assert_close(orthogonalised(matrix * 1e3, torch.float32), orthogonalised(matrix, torch.float32))


def test_nothing_to_learn_moves_nothing() -> None:
    assert torch.equal(orthogonalised(torch.zeros(3, 4), torch.float32), torch.zeros(3, 4))


def test_its_steps_are_those_of_torch() -> None:
    torch.manual_seed(3)
    ours, theirs = (nn.Linear(48, 32, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    one = Muon([{"params": [ours.weight]}], lr=0.02, weight_decay=0.3, momentum=0.9, dtype=torch.bfloat16, world=ALONE)
    other = torch.optim.Muon([theirs.weight], lr=0.02, weight_decay=0.3, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        ours.weight.grad = torch.randn_like(ours.weight)
        theirs.weight.grad = ours.weight.grad.clone()
        one.step()
        other.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=1e-4)


def test_its_steps_are_as_long_as_those_of_adamw() -> None:
    """On average, so that one learning rate serves both."""
    torch.manual_seed(5)
    weight = nn.Parameter(torch.zeros(96, 64))
    muon = Muon([{"params": [weight]}], lr=0.01, weight_decay=0.0, momentum=0.95, dtype=torch.float32, world=ALONE)
    weight.grad = torch.randn(96, 64)
    muon.step()
    # Of a normal matrix iteration and rule leave 0.2 within a few percent.
    assert weight.square().mean().sqrt().item() == pytest.approx(0.01 * 0.2, rel=0.15)


def test_muon_takes_the_matrices_of_the_blocks_part_by_part_and_adamw_the_rest(corpus: Corpus) -> None:
    config = changed(optimiser="muon")
    model = Transfusion(configuration(config, corpus.rows("train")))
    names = {parameter: name for name, parameter in model.named_parameters()}
    adamw, muon = build_optimisers(model, config, ALONE)
    parts = {names[each]: group["num_parts"] for group in muon.param_groups for each in group["params"]}
    block = "transformer.blocks.1."
    assert {name.removeprefix(block): number for name, number in parts.items() if name.startswith(block)} == {
        "attention.0.qkv.weight": 3,
        "attention.0.out.weight": 1,
        "feed_forward.0.gate_up.weight": 2,
        "feed_forward.0.down.weight": 1,
    }
    others = {names[each] for group in adamw.param_groups for each in group["params"]}
    assert not others & set(parts)
    assert others | set(parts) == set(names.values())
    assert {"embedding.weight", "head.weight", "transformer.blocks.0.attention.0.norm.weight"} <= others
    # Of the linear layers one side is a patch's numbers.
    assert {"patch_layers.0.proj_in.weight", "patch_layers.0.proj_out.weight"} <= others


def test_of_the_unet_it_takes_what_lies_between_hidden_channels(corpus: Corpus) -> None:
    choice = dataclasses.replace(CONFIG.model, patch_layers="unet", unet_channels=(16, 32))
    config = changed(optimiser="muon", model=choice)
    model = Transfusion(configuration(config, corpus.rows("train")))
    names = {parameter: name.removeprefix("patch_layers.0.") for name, parameter in model.named_parameters()}
    adamw, muon = build_optimisers(model, config, ALONE)
    shares = {names[each]: group["rate_share"] for group in muon.param_groups for each in group["params"]}
    others = {names[each] for group in adamw.param_groups for each in group["params"]}
    convolutions = {name for each, name in names.items() if each.dim() == 4}
    assert convolutions - set(shares) == {"conv_in.weight", "conv_out.weight"}
    assert {"time_in.weight", "time_embedding.0.weight", "up.1.0.time.weight", "down.0.0.first.bias", "proj_in.bias"} <= others
    assert shares["proj_in.weight"] == shares["proj_out.weight"] == 1.0
    assert shares["up.1.0.first.weight"] == model.config.hidden_size / (2 * 32 * 9)
    assert shares["transformer.blocks.0.attention.0.qkv.weight"] == 1.0


def test_a_convolution_moves_as_the_matrix_that_it_applies_to_each_pixel() -> None:
    torch.manual_seed(11)
    convolution = nn.Conv2d(6, 10, 3, bias=False)
    matrix = nn.Parameter(convolution.weight.detach().reshape(10, 54).clone())
    settings = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.9, "dtype": torch.float32, "world": ALONE}
    one, other = Muon([{"params": [convolution.weight]}], **settings), Muon([{"params": [matrix]}], **settings)
    for _ in range(3):
        convolution.weight.grad = torch.randn_like(convolution.weight)
        matrix.grad = convolution.weight.grad.reshape(10, 54).clone()
        one.step()
        other.step()
    torch.testing.assert_close(convolution.weight.detach().reshape(10, 54), matrix.detach())


def test_stacked_matrices_are_made_orthogonal_one_by_one() -> None:
    torch.manual_seed(7)
    gradients = [torch.randn(16, 16) * size for size in (1.0, 50.0, 0.01)]
    stacked, single = nn.Parameter(torch.zeros(48, 16)), [nn.Parameter(torch.zeros(16, 16)) for _ in gradients]
    settings = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.9, "dtype": torch.float32, "world": ALONE}
    stacked.grad = torch.cat(gradients)
    for parameter, gradient in zip(single, gradients, strict=True):
        parameter.grad = gradient.clone()
    Muon([{"params": [stacked], "num_parts": 3}], **settings).step()
    Muon([{"params": single}], **settings).step()
    torch.testing.assert_close(stacked, torch.cat([each.detach() for each in single]))


def test_workers_have_about_as_much_to_do_as_each_other() -> None:
    shapes = [((768, 256), 3), ((256, 256), 1), ((256, 704), 1), ((1408, 256), 2)] * 4
    costs = [num_products(shape, parts) for shape, parts in shapes]
    # Gram matrix, its square and their product with the matrix.
    assert costs[:3] == [3 * 3 * 256**3, 3 * 256**3, 2 * 256**2 * 704 + 256**3]
    for size in (1, 2, 3, 5):
        owners = dealt_out(costs, size)
        loads = [sum(cost for cost, owner in zip(costs, owners, strict=True) if owner == rank) for rank in range(size)]
        assert sum(loads) == sum(costs) and min(loads) > 0
        # No worker could hand on its smallest matrix and leave all better off.
        assert max(loads) - min(loads) <= max(costs)
    assert dealt_out(costs, 2).count(0) == 8 and dealt_out([5], 3) == [0]
