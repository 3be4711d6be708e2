"""Captions decide what is drawn, a few hundred steps into training, with every prediction type and both kinds of patch layers.

A wrong target, a skip that carries all, or layers that leave the transformer no say show here: the losses still fall.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import get_args

import pytest
import torch

from model.config import PatchLayersKind, PredictionType, image_modality, model_config
from model.generation.eager import TorchEngine
from model.generation.requests import SamplingOptions, image_request
from model.generation.sampling import generate
from model.latents.patches import patchify
from model.loss import loss_sums
from model.loss_options import PLAIN
from model.transfusion import Transfusion
from tests.model.conftest import SPECIAL_IDS, pack

NUM_CAPTIONS, CHANNELS, SIDE, PATCH_SIDE = 4, 2, 4, 2
BATCH, RATE = 16, 4e-3
# A step of the U-Net takes more than twice as long, and teaches more.
NUM_STEPS: dict[PatchLayersKind, int] = {"linear": 250, "unet": 170}
# Captions decide at high noise, and more of a short training is spent there.
OPTIONS = replace(PLAIN, time_shift=3.0)
FIRST_WORD = 10


def new_model(prediction_type: PredictionType, kind: PatchLayersKind) -> Transfusion:
    images = image_modality(
        channels=CHANNELS,
        patch_side=PATCH_SIDE,
        patch_layers=kind,
        unet_channels=(8, 16) if kind == "unet" else (),
        begin_token_id=SPECIAL_IDS["boi"],
        end_token_id=SPECIAL_IDS["eoi"],
    )
    config = model_config(
        "tiny",
        vocab_size=64,
        modalities=(images,),
        prediction_type=prediction_type,
        max_position_embeddings=160,
        special_ids=SPECIAL_IDS,
    )
    return Transfusion(replace(config, hidden_size=64, num_attention_heads=4, intermediate_size=128)).train()


@pytest.mark.parametrize("kind", get_args(PatchLayersKind))
@pytest.mark.parametrize("prediction_type", get_args(PredictionType))
def test_a_picture_is_of_its_caption(prediction_type: PredictionType, kind: PatchLayersKind, rng: random.Random) -> None:
    torch.manual_seed(rng.randrange(2**32))
    model = new_model(prediction_type, kind)
    # One picture a caption, each number of it +1 or -1, and a little noise in every copy.
    pictures = torch.randint(2, (NUM_CAPTIONS, CHANNELS, SIDE, SIDE)) * 2.0 - 1
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=NUM_STEPS[kind])
    for step in range(NUM_STEPS[kind]):
        shown = torch.randint(NUM_CAPTIONS, (BATCH,))
        documents = [[1, FIRST_WORD + caption, 3, *([-1] * 4), 4, 2] for caption in shown.tolist()]
        batch = pack([[document] for document in documents], model.config, len(documents[0]))
        latents = pictures[shown] + 0.3 * torch.randn(BATCH, CHANNELS, SIDE, SIDE)
        patches = patchify(latents, (PATCH_SIDE, PATCH_SIDE)).flatten(0, 1)
        batch = batch._replace(latents=(batch.latents[0]._replace(patches=patches),))
        sums = loss_sums(model, batch, 0, step, OPTIONS)
        (sums.text / sums.num_tokens + 5 * sums.image / sums.num_values).backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()

    wanted = list(range(NUM_CAPTIONS)) * 8
    requests = [
        image_request(model.config, [FIRST_WORD + caption], seed=seed, image_shape=(SIDE, SIDE))
        for seed, caption in enumerate(wanted)
    ]
    options = SamplingOptions(num_steps=10, guidance_scale=1.0)
    drawn = torch.stack([each.images[0] for each in generate(TorchEngine(model.eval()), requests, options, num_slots=16)])
    distance = torch.cdist(drawn.flatten(1), pictures.flatten(1))
    right = (distance.argmin(1) == torch.tensor(wanted)).float().mean()
    print(
        f"{prediction_type}, {kind}: {right:.2f} of pictures nearest to their caption's, where chance is {1 / NUM_CAPTIONS:.2f}"
    )
    # One of the four captions taken for another leaves 0.75.
    assert right > 0.6
