"""Every number of a latent is where `patchify` promises it and `unpatchify` returns it; linear layers read each patch alone."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from torch import Tensor

from model.latents.patches import LinearPatchLayers, patchify, time_features, unpatchify


def _shape(rng: random.Random, num_axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A patch and axes that it divides."""
    patch = tuple(rng.choice([1, 2, 3, 4]) for _ in range(num_axes))
    return patch, tuple(side * rng.randrange(1, 4) for side in patch)


def _cut_by_loops(latent: Tensor, patch: tuple[int, ...]) -> Tensor:
    """The definition, number by number: patches in raster order; in each, channel by channel, its pixels in raster order."""
    channels, *axes = latent.shape
    corners = itertools.product(*(range(0, length, side) for length, side in zip(axes, patch, strict=True)))
    rows = []
    for corner in corners:
        offsets = itertools.product(range(channels), *(range(side) for side in patch))
        at = [(channel, *(start + step for start, step in zip(corner, inside, strict=True))) for channel, *inside in offsets]
        rows.append([latent[index].item() for index in at])
    return torch.tensor(rows)


@pytest.mark.parametrize("num_axes", [1, 2, 3])
def test_cut_equals_loops_and_join_undoes_it(num_axes: int, rng: random.Random) -> None:
    for _ in range(5):
        patch, axes = _shape(rng, num_axes)
        channels, num_latents = rng.randrange(1, 4), rng.randrange(1, 4)
        latents = torch.randn(num_latents, channels, *axes)
        patches = patchify(latents, patch)
        assert patches.shape[2] == channels * math.prod(patch)
        for latent, row in zip(latents, patches, strict=True):
            assert torch.equal(row, _cut_by_loops(latent, patch))
        assert torch.equal(unpatchify(patches, channels=channels, axes=axes, patch_size=patch), latents)


def test_cut_and_join_of_no_latents_keep_their_shapes() -> None:
    patches = patchify(torch.zeros(0, 3, 4, 6), (2, 3))
    assert patches.shape == (0, 4, 18)
    assert unpatchify(patches, channels=3, axes=(4, 6), patch_size=(2, 3)).shape == (0, 3, 4, 6)


@pytest.mark.parametrize(
    ("axes", "patch"), [((6, 6), (4, 4)), ((8, 6), (2, 4)), ((9,), (2,)), ((2, 4, 5), (1, 2, 2)), ((4, 4), (2,))]
)
def test_a_patch_that_does_not_fit_is_named(axes: tuple[int, ...], patch: tuple[int, ...]) -> None:
    sizes = " x ".join(map(str, axes))
    with pytest.raises(ValueError, match=f"patch_size: {' x '.join(map(str, patch))} does not divide the latent of {sizes}"):
        patchify(torch.zeros(1, 1, *axes), patch)


def test_the_linear_codec_is_two_linear_layers_and_the_time_between(rng: random.Random) -> None:
    """Against the formula by hand, with any leading dimensions, and the same names in a saved model as ever."""
    torch.manual_seed(rng.randrange(2**32))
    layers = LinearPatchLayers(patch_dim=6, hidden_size=16)
    assert sorted(layers.state_dict()) == sorted(
        f"{layer}.{kind}"
        for layer in ("proj_in", "time_embedding.0", "time_embedding.2", "proj_out")
        for kind in ("weight", "bias")
    )
    leading = tuple(rng.randrange(1, 4) for _ in range(rng.randrange(1, 4)))
    patches, time = torch.randn(*leading, 6), torch.rand(leading)
    weights = layers.state_dict()
    first = time_features(time, 128) @ weights["time_embedding.0.weight"].T + weights["time_embedding.0.bias"]
    embedded = (first / (1 + torch.exp(-first))) @ weights["time_embedding.2.weight"].T + weights["time_embedding.2.bias"]
    expected = patches @ weights["proj_in.weight"].T + weights["proj_in.bias"] + embedded
    hidden, skip = layers.patch_in(patches, time, None)
    assert skip is None
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layers.patch_out(hidden, time), hidden @ weights["proj_out.weight"].T + weights["proj_out.bias"])
    # Grids and skip, which the U-Net reads, change nothing.
    assert torch.equal(layers.patch_in(patches, time, None, ((1, 2),))[0], hidden)
    assert torch.equal(layers.patch_out(hidden, time, ((1, 2),), None), layers.patch_out(hidden, time))


def test_a_time_for_each_latent_is_the_same_as_one_for_each_patch(rng: random.Random) -> None:
    """In value, and in the gradients of every weight; also where there is no latent at all."""
    torch.manual_seed(rng.randrange(2**32))
    layers = LinearPatchLayers(patch_dim=6, hidden_size=16)
    for num_latents in (rng.randrange(1, 5), 0):
        latent_of = torch.arange(num_latents).repeat_interleave(torch.randint(1, 9, (num_latents,)))
        patches, time = torch.randn(len(latent_of), 6), torch.rand(num_latents)
        weights = torch.randn(len(latent_of), 16)
        ways = [layers.patch_in(patches, time, latent_of)[0], layers.patch_in(patches, time[latent_of], None)[0]]
        inputs = [layers.proj_in.weight, *layers.time_embedding.parameters()]
        gradients = [torch.autograd.grad((hidden * weights).sum(), inputs) for hidden in ways]
        torch.testing.assert_close(*ways)
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_the_linear_codec_predicts_in_float32_from_half_precision() -> None:
    layers = LinearPatchLayers(patch_dim=6, hidden_size=16).to(torch.bfloat16)
    hidden, _ = layers.patch_in(torch.randn(5, 6), torch.rand(5), None)
    assert hidden.dtype == torch.bfloat16
    assert layers.patch_out(hidden, torch.rand(5)).dtype == torch.float32


def test_time_features_tell_neighbouring_noise_levels_apart() -> None:
    """Each of 1000 levels is nearest to itself by far, also from a half-precision caller's float32 time."""
    features = time_features(torch.arange(1000) / 1000, 128)
    assert features.shape == (1000, 128)
    distance = torch.cdist(features, features) + 9 * torch.eye(1000)
    assert distance.min() > 0.1
