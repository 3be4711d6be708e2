"""The counted arithmetic is what torch counts when the work is done."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.config import Experts, Modality, model_config
from model.flops import patch_products, step_flops
from model.latents.patch_layers import new_patch_layers
from model.loss import loss_sums
from model.loss_options import PLAIN
from model.transfusion import Transfusion
from tests.model.conftest import SPECIAL_IDS, pack, random_document

WIDTH = 96
UNETS: dict[tuple[int, ...], tuple[int, ...]] = {
    (1, 1): (48,),
    (2, 2): (32, 64),
    (8, 8): (16, 24, 32, 48),
    (4, 2): (16, 24, 32),
    (4,): (16, 24, 32),
    (2, 2, 2): (16, 24),
}


def modality(patch: tuple[int, ...], **layers: Any) -> Modality:
    return Modality(name="some", channels=4, patch_size=patch, begin_token_id=3, end_token_id=4, **layers)


@pytest.mark.parametrize("patch", UNETS, ids=str)
@pytest.mark.parametrize("kind", ["linear", "unet"])
def test_a_codec_costs_what_torch_counts(kind: str, patch: tuple[int, ...], rng: random.Random) -> None:
    """Several latents, some of one grid, forward and backward."""
    given = modality(patch, patch_layers=kind, unet_channels=UNETS[patch] if kind == "unet" else ())
    layers = new_patch_layers(given, WIDTH)
    grids = [tuple(rng.randrange(1, 5) for _ in patch) for _ in range(3)]
    grids.append(grids[0])
    num_patches = [int(torch.tensor(grid).prod()) for grid in grids]
    patches = torch.randn(sum(num_patches), given.patch_dim, requires_grad=True)
    time, latent_of = (
        torch.rand(len(grids), requires_grad=True),
        torch.arange(len(grids)).repeat_interleave(torch.tensor(num_patches)),
    )
    with FlopCounterMode(display=False) as forward:
        hidden, skip = layers.patch_in(patches, time, latent_of, grids)
        written = layers.patch_out(hidden, time, grids, skip)  # type: ignore[arg-type]
    assert forward.get_total_flops() == 2 * patch_products(layers, grids)
    with FlopCounterMode(display=False) as backward:
        written.sum().backward()
    assert backward.get_total_flops() == 4 * patch_products(layers, grids)


@pytest.mark.parametrize("kind", ["linear", "unet"])
@pytest.mark.parametrize("experts", ["shared", "full"])
def test_a_step_costs_what_torch_counts(kind: str, experts: Experts, rng: random.Random) -> None:
    """At the demonstration's size, where what torch does otherwise (masked attention, no gradient of inputs) is little."""
    images = modality((2, 2), patch_layers=kind, unet_channels=(64, 128) if kind == "unet" else ())
    config = model_config(
        "demo",
        vocab_size=64,
        modalities=(images,),
        prediction_type="flow",
        max_position_embeddings=160,
        special_ids=SPECIAL_IDS,
        experts=experts,
    )
    model = Transfusion(config)
    document = random_document(rng, 3)
    batch = pack([[document]], model.config, len(document))
    with FlopCounterMode(display=False) as counter:
        sums = loss_sums(model, batch, 0, 0, PLAIN)
        (sums.text + sums.image).backward()
    whole, counted = counter.get_total_flops(), step_flops(model, batch, len(document))
    print("torch", whole, "here", counted, counted / whole)
    assert counted == pytest.approx(whole, rel=0.03)
    # Padding counts nowhere.
    padded = pack([[document]], model.config, len(document) + 9)
    num_positions = int(padded.used(model.config.pad_token_id).sum())
    assert num_positions == len(document)
    assert step_flops(model, padded, num_positions) == counted
