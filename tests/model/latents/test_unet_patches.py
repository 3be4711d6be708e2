"""The U-Net reads each latent whole and alone, whatever its axes, and can learn."""

from __future__ import annotations

import math
import random

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from model.config import Modality
from model.latents.unet_patches import ResidualBlock, UNetPatchLayers, halvings

PATCHES = [(1,), (4,), (1, 1), (2, 2), (4, 4), (8, 8), (4, 1), (2, 4), (1, 2, 2), (2, 1, 4), (1, 1, 1)]
WIDTH = 10


def _modality(patch: tuple[int, ...], unet_channels: tuple[int, ...], channels: int = 3) -> Modality:
    return Modality(
        name="image",
        channels=channels,
        patch_size=patch,
        patch_layers="unet",
        unet_channels=unet_channels,
        begin_token_id=3,
        end_token_id=4,
    )


def _layers(patch: tuple[int, ...], seed: int = 0, channels: int = 3) -> UNetPatchLayers:
    """A small one in float64, with weights large enough that every path matters."""
    torch.manual_seed(seed)
    levels = max(patch).bit_length()
    layers = UNetPatchLayers(_modality(patch, tuple(4 + 2 * level for level in range(levels)), channels), WIDTH).double()
    for parameter in layers.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layers


def _grid(rng: random.Random, num_axes: int) -> tuple[int, ...]:
    return tuple(rng.randrange(1, 4) for _ in range(num_axes))


def _through(layers: UNetPatchLayers, patches: Tensor, time: Tensor, grids: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """Encoded, and decoded from something that is not what was encoded, as after a transformer."""
    hidden, skip = layers.patch_in(patches, time, None, grids)
    return hidden, layers.patch_out(hidden.tanh() + 0.5, time, grids, skip)


def _call(rng: random.Random, layers: UNetPatchLayers, grids: list[tuple[int, ...]]) -> tuple[Tensor, Tensor, list[int]]:
    """patches, time and the sizes of latents with these grids."""
    generator = torch.Generator().manual_seed(rng.randrange(2**32))
    sizes = [math.prod(grid) for grid in grids]
    patches = torch.randn(sum(sizes), layers.channels * math.prod(layers.patch_size), dtype=torch.float64, generator=generator)
    time = torch.rand(len(grids), dtype=torch.float64, generator=generator)
    return patches, time, sizes


@pytest.mark.parametrize("patch", PATCHES)
def test_latents_of_mixed_grids_in_one_call_equal_each_alone(patch: tuple[int, ...], rng: random.Random) -> None:
    layers = _layers(patch, rng.randrange(1000))
    kinds = [_grid(rng, len(patch)) for _ in range(3)]
    grids = [rng.choice(kinds) for _ in range(6)]
    patches, time, sizes = _call(rng, layers, grids)
    with torch.no_grad():
        hidden, predicted = _through(layers, patches, time, grids)
        parts = zip(grids, patches.split(sizes), time.split(1), strict=True)
        alone = [_through(layers, part, level, [grid]) for grid, part, level in parts]
    assert hidden.shape == (len(patches), WIDTH) and predicted.shape == patches.shape
    torch.testing.assert_close(hidden, torch.cat([each[0] for each in alone]), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(predicted, torch.cat([each[1] for each in alone]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("patch", [(4,), (1, 1), (2, 2), (1, 2, 2)])
def test_a_latent_has_no_gradient_and_no_word_from_its_neighbours(patch: tuple[int, ...], rng: random.Random) -> None:
    layers = _layers(patch, rng.randrange(1000))
    same = tuple(2 for _ in patch)
    grids = [same, same, _grid(rng, len(patch)), same]
    patches, time, sizes = _call(rng, layers, grids)
    chosen = rng.randrange(4)
    patches.requires_grad_()
    for output in _through(layers, patches, time, grids):
        weights = torch.randn_like(output.split(sizes)[chosen])
        (gradient,) = torch.autograd.grad((output.split(sizes)[chosen] * weights).sum(), patches, retain_graph=True)
        for number, part in enumerate(gradient.split(sizes)):
            assert bool((part != 0).any()) == (number == chosen)
            assert bool((part == 0).all()) == (number != chosen)
    others = patches.detach().clone()
    keep = torch.cat([torch.full((size,), number == chosen) for number, size in enumerate(sizes)])
    others[~keep] = 100 * torch.randn_like(others[~keep])
    with torch.no_grad():
        for before, after in zip(_through(layers, patches, time, grids), _through(layers, others, time, grids), strict=True):
            assert torch.equal(before[keep], after[keep])
            assert not torch.equal(before[~keep], after[~keep])


@pytest.mark.parametrize(("flat", "lifted"), [((2, 2), (1, 2, 2)), ((4,), (1, 4)), ((4,), (4, 1)), ((2, 4), (2, 1, 4))])
def test_more_axes_of_patch_one_are_many_latents_of_fewer(
    flat: tuple[int, ...], lifted: tuple[int, ...], rng: random.Random
) -> None:
    """A video whose kernels see one frame at a time is what the layers of images make of every frame."""
    small = _layers(flat, rng.randrange(1000))
    large = _layers(lifted)
    added = next(axis for axis in range(len(lifted)) if lifted[:axis] + lifted[axis + 1 :] == flat and lifted[axis] == 1)
    weights = small.state_dict()
    for name, value in large.state_dict().items():
        if value.shape != weights[name].shape:
            value.zero_()
            value.select(2 + added, value.shape[2 + added] // 2).copy_(weights[name])
        else:
            value.copy_(weights[name])
    grid, length = _grid(rng, len(flat)), rng.randrange(2, 4)
    patches, _, _ = _call(rng, small, [grid] * length)
    time = torch.full((length,), rng.random(), dtype=torch.float64)
    with torch.no_grad():
        expected = _through(small, patches, time, [grid] * length)
        # From slice by slice to raster order of the larger grid.
        there = torch.arange(len(patches)).view(length, *grid).movedim(0, added).flatten()
        result = _through(large, patches[there], time[:1], [(*grid[:added], length, *grid[added:])])
    for ours, theirs in zip(result, expected, strict=True):
        torch.testing.assert_close(ours, theirs[there], rtol=1e-9, atol=1e-9)


def test_a_residual_block_is_diffusers_with_a_layer_norm(rng: random.Random) -> None:
    class ManualNorm(nn.Module):
        def __init__(self, norm: nn.LayerNorm) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor) -> Tensor:
            centred = x - x.mean(1, keepdim=True)
            scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
            return scaled * self.norm.weight.view(1, -1, 1, 1) + self.norm.bias.view(1, -1, 1, 1)

    torch.manual_seed(rng.randrange(2**32))
    inputs, outputs = rng.choice([(4, 4), (8, 4), (3, 6)])
    ours = ResidualBlock(nn.Conv2d, inputs, outputs, 5)
    theirs = ResnetBlock2D(in_channels=inputs, out_channels=outputs, temb_channels=5, groups=1)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs.norm1, theirs.norm2 = ManualNorm(ours.first_norm), ManualNorm(ours.second_norm)  # type: ignore[assignment]
    theirs.conv1, theirs.conv2, theirs.time_emb_proj = ours.first, ours.second, ours.time  # type: ignore[assignment]
    if inputs != outputs:
        theirs.conv_shortcut = ours.shortcut  # type: ignore[assignment]
    x, time = torch.randn(2, inputs, 5, 3), torch.randn(2, 5)
    torch.testing.assert_close(ours(x, time), theirs(x, time), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("width", "channels", "millions"),
    [(768, (544, 1088), 170), *((width, (704, 1344), 270) for width in (1024, 1536, 2048)), (4096, (688, 1312), 270)],
)
def test_the_widths_in_the_docstring_have_the_papers_size(width: int, channels: tuple[int, ...], millions: int) -> None:
    with torch.device("meta"):
        layers = UNetPatchLayers(_modality((2, 2), channels, channels=8), width)
    assert sum(parameter.numel() for parameter in layers.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


def test_it_begins_with_a_prediction_of_zero_and_vectors_of_the_linear_codecs_size(rng: random.Random) -> None:
    torch.manual_seed(rng.randrange(2**32))
    layers = UNetPatchLayers(_modality((2, 2), (32, 64), channels=8), 512)
    grids = [(8, 8)] * 2
    hidden, skip = layers.patch_in(torch.randn(128, 32), torch.rand(2), None, grids)
    assert layers.patch_out(torch.randn(128, 512), torch.zeros(2), grids, skip).abs().max() == 0
    # The model's deviation at this width, on 32 numbers of deviation one.
    assert float(hidden.std()) == pytest.approx(0.02 * (1024 / 512) ** 0.5 * 32**0.5, rel=0.15)


@pytest.mark.parametrize(
    ("patch", "channels", "unet_channels", "width"), [((4, 4), 8, (64, 128, 256), 256), ((2, 2), 8, (544, 1088), 768)]
)
def test_the_transformer_has_a_say_from_the_beginning(
    patch: tuple[int, ...], channels: int, unet_channels: tuple[int, ...], width: int, rng: random.Random
) -> None:
    """As much as half of what the skips have; with torch's own weights 0.003 and 0.04."""
    torch.manual_seed(rng.randrange(2**32))
    layers, grids = UNetPatchLayers(_modality(patch, unet_channels, channels), width), [(2, 2)] * 8
    # The last layer begins at zero and passes on whatever comes.
    torch.nn.init.normal_(layers.conv_out.weight)
    patches, said, time = torch.randn(2, 32, channels * math.prod(patch)), torch.randn(2, 32, width), torch.rand(8)
    with torch.no_grad():
        first, second = (layers.patch_in(each, time, None, grids)[1] for each in patches)
        here = layers.patch_out(said[0], time, grids, first)
        by_transformer = (layers.patch_out(said[1], time, grids, first) - here).std()
        by_skips = (layers.patch_out(said[0], time, grids, second) - here).std()
    assert 0.4 < by_transformer / by_skips < 2


def test_every_weight_matters_and_calls_without_latents_bring_gradients_of_zero(rng: random.Random) -> None:
    layers = _layers((4, 2), rng.randrange(1000))
    patches, time, _ = _call(rng, layers, [(2, 3)])
    for grids, matters in (([(2, 3)], True), ([], False)):
        layers.zero_grad(set_to_none=True)
        given = (patches, time) if grids else (patches[:0], time[:0])
        hidden, predicted = _through(layers, *given, grids)
        assert hidden.shape == (len(given[0]), WIDTH) and predicted.shape == given[0].shape
        (predicted.square().sum() + hidden.sum()).backward()
        for name, parameter in layers.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.any()) == matters, name


def test_time_and_skip_are_read_in_both_halves(rng: random.Random) -> None:
    layers = _layers((2, 2), rng.randrange(1000))
    grids = [(2, 2)]
    patches, time, _ = _call(rng, layers, grids)
    other = (time + 0.5) % 1
    with torch.no_grad():
        hidden, skip = layers.patch_in(patches, time, None, grids)
        predicted = layers.patch_out(hidden, time, grids, skip)
        assert not torch.allclose(layers.patch_in(patches, other, None, grids)[0], hidden)
        assert not torch.allclose(layers.patch_out(hidden, other, grids, skip), predicted)
        assert len(skip) == 1 and len(skip[0]) == 2 * layers.num_blocks
        for number in range(len(skip[0])):
            without = tuple(part * (k != number) for k, part in enumerate(skip[0]))
            assert not torch.allclose(layers.patch_out(hidden, time, grids, (without,)), predicted), number


@pytest.mark.parametrize("patch", [(2,), (2, 2), (1, 2, 1)])
def test_gradients_equal_finite_differences(patch: tuple[int, ...], rng: random.Random) -> None:
    layers = _layers(patch, rng.randrange(1000), channels=1)
    grids = [(2, 1, 2)[: len(patch)], (1,) * len(patch)]
    patches, time, _ = _call(rng, layers, grids)
    changed = torch.randn(len(patches), WIDTH, dtype=torch.float64)

    def run(patches: Tensor, change: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        hidden, skip = layers.patch_in(patches, time, None, grids)
        return hidden, layers.patch_out(hidden + change, time, grids, skip)

    weights = [layers.conv_out.weight, layers.down[-1][0].time.bias, layers.up[0][0].first_norm.weight]  # type: ignore[index]
    assert torch.autograd.gradcheck(run, (patches.requires_grad_(), changed.requires_grad_(), *weights), atol=1e-6)


@pytest.mark.parametrize("patch", [(2, 2), (4,)])
def test_it_learns_to_tell_noise_from_latents(patch: tuple[int, ...], rng: random.Random) -> None:
    """By itself: what the transformer would make of the patches is left as it is."""
    torch.manual_seed(rng.randrange(2**32))
    layers = UNetPatchLayers(_modality(patch, (12, 16, 24)[: max(patch).bit_length()], channels=2), 32)
    num_axes, sizes = len(patch), [math.prod(grid) for grid in [(3, 2)[: len(patch)], (2, 2)[: len(patch)]] * 2]
    grids = [(3, 2)[:num_axes], (2, 2)[:num_axes]] * 2
    x_0, noise = torch.randn(2, sum(sizes), 2 * math.prod(patch)).unbind()
    time = torch.rand(4)
    of_patch = time.repeat_interleave(torch.tensor(sizes)).unsqueeze(1)
    x_t = (1 - of_patch) * x_0 + of_patch * noise
    optimiser, losses = torch.optim.AdamW(layers.parameters(), lr=3e-3), []
    for _ in range(100):
        hidden, skip = layers.patch_in(x_t, time, None, grids)
        loss = (layers.patch_out(hidden, time, grids, skip) - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(float(noise.square().mean()), rel=1e-5)
    assert losses[-1] < 0.05


def test_half_precision_predicts_in_float32(rng: random.Random) -> None:
    layers = _layers((2, 2)).to(torch.bfloat16)
    patches, time, _ = _call(rng, layers, [(2, 2)])
    hidden, predicted = _through(layers, patches.float(), time.float(), [(2, 2)])
    assert (hidden.dtype, predicted.dtype) == (torch.bfloat16, torch.float32)


def test_halvings_stop_where_an_axis_is_one_patch_long() -> None:
    levels = {(1, 1): [], (2, 2): [(2, 2)], (4, 2): [(2, 2), (2, 1)], (1, 8): [(1, 2)] * 3, (1, 2, 2): [(1, 2, 2)]}
    for patch, steps in levels.items():
        assert halvings(_modality(patch, (8,) * (len(steps) + 1))) == steps


@pytest.mark.parametrize(
    ("patch", "channels", "message"),
    [
        ((3, 3), (8, 8), r"image\.patch_size: .* power of two"),
        ((0,), (8,), r"image\.patch_size: .* power of two"),
        ((2, 2), (8,), r"image\.unet_channels: .* names 1 levels; .* has 2"),
        ((1, 1, 1, 1), (8,), r"image\.patch_size: .* has 4 axes"),
    ],
)
def test_a_modality_that_does_not_fit_is_named(patch: tuple[int, ...], channels: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNetPatchLayers(_modality(patch, channels), WIDTH)
