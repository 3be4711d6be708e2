"""The interval says exactly what the paper's mask says, and nothing leaks past it."""

from __future__ import annotations

import random
from typing import cast

import torch

from model.attention.packed import packed_attention
from model.attention.visibility import as_bias, visible
from model.diffusion.noise import TimedNoise
from model.experts import shared
from model.latents.patches import LinearPatchLayers
from model.loss import loss_sums_at
from model.loss_options import PLAIN
from tests.model.conftest import pack, random_document, tiny_config, tiny_model


def _brute_force(documents: list[list[int]], length: int) -> torch.Tensor:
    """The mask from its definition: same document, and not later unless both are patches of the same image."""
    tokens = [(index, token) for index, document in enumerate(documents) for token in document]
    mask = torch.eye(length, dtype=torch.bool)
    for query, (query_document, query_token) in enumerate(tokens):
        for key, (key_document, key_token) in enumerate(tokens):
            same_image = query_token < 0 and query_token == key_token
            mask[query, key] = query_document == key_document and (key <= query or same_image)
    return mask


def test_intervals_equal_the_definition_on_random_layouts(rng: random.Random) -> None:
    for _ in range(50):
        documents = [random_document(rng, rng.randrange(3)) for _ in range(rng.randrange(1, 4))]
        length = sum(map(len, documents)) + rng.randrange(4)
        batch = pack([documents], tiny_config(), length)
        assert torch.equal(visible(batch.kv_start, batch.kv_end, length)[0], _brute_force(documents, length))


def test_a_prediction_depends_only_on_what_it_sees(rng: random.Random) -> None:
    """The gradient of each text prediction and each patch prediction is exactly zero outside its interval."""
    model, config = tiny_model(), tiny_config()
    documents = [random_document(rng, 2), random_document(rng, 1)]
    length = sum(map(len, documents)) + 2
    batch = pack([documents], config, length)
    mask = visible(batch.kv_start, batch.kv_end, length)[0]
    embedded = model.embedding(batch.input_ids).detach()
    (images,) = batch.latents
    time = torch.rand(len(images.sample_index))
    patches = cast(LinearPatchLayers, model.patch_layers[0]).patch_in(images.patches, time, images.latent_index)[0].detach()
    x = embedded.flatten(0, 1).index_copy(0, images.patch_positions, patches).view(1, length, -1).requires_grad_()
    hidden = model.transformer(x, batch.position_ids, packed_attention(batch.kv_start, batch.kv_end), shared)
    for query in range(length):
        (gradient,) = torch.autograd.grad(hidden[0, query].sum(), x, retain_graph=True)
        reached = gradient[0].abs().sum(-1) > 0
        assert not (reached & ~mask[query]).any()
        assert reached[query]


def test_packing_changes_no_loss(rng: random.Random) -> None:
    """Documents in one row lose what they lose in rows of their own."""
    model, config = tiny_model(), tiny_config()
    documents = [random_document(rng, rng.randrange(1, 3)) for _ in range(3)]
    together = pack([documents], config, sum(map(len, documents)) + 3, seed=1)
    apart = pack([[document] for document in documents], config, max(map(len, documents)) + 5, seed=1)
    (images,) = together.latents
    drawn = [TimedNoise(noise=torch.randn_like(images.patches), time=torch.rand(len(images.sample_index)))]
    with torch.no_grad():
        one, other = (loss_sums_at(model, batch, drawn, PLAIN) for batch in (together, apart))
    torch.testing.assert_close(one.text, other.text, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.image, other.image, rtol=1e-5, atol=1e-5)


def test_a_bias_weighs_what_is_seen_alone(rng: random.Random) -> None:
    """A softmax over biased scores is the softmax over what the mask lets through, and 0 elsewhere, exactly."""
    torch.manual_seed(rng.randrange(2**32))
    mask = torch.rand(3, 5, 7) < 0.5
    mask[..., 0] = True
    for dtype in (torch.float32, torch.bfloat16):
        scores, bias = torch.randn(3, 5, 7).to(dtype), as_bias(mask)(dtype)
        assert bias.dtype == dtype
        found = (scores + bias).softmax(-1)
        for row, seen in zip(found.flatten(0, 1), mask.flatten(0, 1), strict=True):
            assert not row[~seen].any()
        for index in range(15):
            seen = mask.flatten(0, 1)[index]
            torch.testing.assert_close(found.flatten(0, 1)[index][seen], scores.flatten(0, 1)[index][seen].softmax(-1))
