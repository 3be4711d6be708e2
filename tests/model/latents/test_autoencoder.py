"""Latents are normalised by whichever convention the folder follows, and a saved autoencoder is the same one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.latents.autoencoder import Autoencoder, QuantisedAutoencoder, to_images, to_pixels
from model.latents.sizes import PRESETS, Preset


def _small() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder.create(
        block_channels=(8, 16), layers_per_block=1, latent_channels=4, norm_groups=4, sample_side_px=16
    ).eval()


def test_a_saved_autoencoder_comes_back_with_its_normalisation(tmp_path: Path) -> None:
    one = _small()
    one.set_normalisation(torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([1.0, 2.0, 0.5, 4.0]))
    one.save_pretrained(tmp_path)
    other = Autoencoder.from_pretrained(tmp_path)
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        assert torch.equal(one.encode(pixels), other.encode(pixels))
        assert torch.equal(one.decode(one.encode(pixels)), other.decode(other.encode(pixels)))
    assert (other.latent_channels, other.pixels_per_latent) == (4, 2)


def test_normalisation_only_shifts_and_scales(tmp_path: Path) -> None:
    plain, scaled = _small(), _small()
    mean, std = torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([1.0, 2.0, 0.5, 4.0])
    scaled.set_normalisation(mean, std)
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        raw, ours = plain.encode_moments(pixels), scaled.encode_moments(pixels)
        torch.testing.assert_close(ours.mean, (raw.mean - mean.view(1, 4, 1, 1)) / std.view(1, 4, 1, 1))
        torch.testing.assert_close(ours.std, raw.std / std.view(1, 4, 1, 1))
        torch.testing.assert_close(scaled.decode(ours.mean), plain.decode(raw.mean), rtol=1e-4, atol=1e-4)


def test_scaling_and_shift_of_an_sd_style_folder_are_honoured(tmp_path: Path) -> None:
    small = _small()
    small.network.register_to_config(scaling_factor=0.25, shift_factor=0.5, latents_mean=None, latents_std=None)
    small.network.save_pretrained(tmp_path)
    other = Autoencoder.from_pretrained(tmp_path)
    pixels = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(other.encode(pixels), (small.network.encode(pixels).latent_dist.mean - 0.5) * 0.25)


def test_bytes_survive_the_way_to_pixels_and_back() -> None:
    images = torch.randint(0, 256, (2, 4, 6, 3), dtype=torch.uint8)
    assert torch.equal(to_images(to_pixels(images)), images)


def _quantised() -> QuantisedAutoencoder:
    torch.manual_seed(1)
    small = QuantisedAutoencoder.with_codes(PRESETS["tiny"], num_codes=32, code_dim=4, sample_side_px=16).eval()
    with torch.no_grad():
        # A fresh encoder's latents are nearest to few codes; spread as the latents are, many are met.
        small.codebook.copy_(torch.randn(32, 4))
        small.network.quant_conv.weight.mul_(3)
    return small


def test_the_papers_size_is_the_papers() -> None:
    with torch.device("meta"):
        paper = Autoencoder.create(**PRESETS["86m"]._asdict(), sample_side_px=256)
    millions = sum(parameter.numel() for parameter in paper.parameters()) / 1e6
    assert millions == pytest.approx(86, rel=0.03), millions
    assert (paper.pixels_per_latent, paper.latent_channels) == (8, 8)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_size_can_be_made_in_both_kinds(name: Preset) -> None:
    size = PRESETS[name]
    with torch.device("meta"):
        plain = Autoencoder.create(**size._asdict(), sample_side_px=32)
        coded = QuantisedAutoencoder.with_codes(size, num_codes=16384, code_dim=8, sample_side_px=32)
    assert plain.pixels_per_latent == coded.pixels_per_latent == 2 ** (len(size.block_channels) - 1)
    assert (coded.latent_channels, tuple(coded.codebook.shape)) == (8, (16384, 8))


def test_codes_and_latents_of_the_quantised_twin_are_one_thing(tmp_path: Path) -> None:
    one = _quantised()
    one.set_normalisation(torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([1.0, 2.0, 0.5, 4.0]))
    one.save_pretrained(tmp_path)
    other = Autoencoder.from_pretrained(tmp_path)
    assert isinstance(other, QuantisedAutoencoder)
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        codes, moments = one.encode_codes(pixels), one.encode_moments(pixels)
        assert codes.shape == (2, 8, 8) and codes.dtype == torch.int64 and len(codes.unique()) > 3
        assert torch.equal(other.encode_codes(pixels), codes)
        assert torch.equal(other.encode(pixels), moments.mean)
        assert not moments.std.any()
        vectors = one.codebook[codes].movedim(-1, 1)
        raw = moments.mean * one.latent_std + one.latent_mean
        torch.testing.assert_close(raw, vectors, rtol=1e-5, atol=1e-5)
        decoded = one.decode_codes(codes)
        assert torch.equal(other.decode_codes(codes), decoded)
        assert torch.equal(one.decode(moments.mean), decoded)
        # A latent beside a code is decoded as the code.
        assert torch.equal(one.decode(moments.mean + 1e-4), decoded)
        reference = one.network.decode(one.network.encode(pixels).latents).sample
        torch.testing.assert_close(decoded, reference, rtol=1e-4, atol=1e-4)
    assert (other.latent_channels, other.pixels_per_latent) == (4, 2)


def test_a_vq_model_of_others_keeps_its_scale(tmp_path: Path) -> None:
    one = _quantised()
    one.network.register_to_config(scaling_factor=0.25)
    one.network.save_pretrained(tmp_path)
    other = Autoencoder.from_pretrained(tmp_path)
    pixels = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(other.encode(pixels), one.encode(pixels) * 0.25)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_what_is_saved_does_not_say_where_it_was_read(kind: str, tmp_path: Path) -> None:
    """Equal weights give equal bytes in any folder, so that digests do not change with the checkout."""
    made = _small() if kind == "kl" else _quantised()
    for folder in ("here", "there"):
        made.save_pretrained(tmp_path / folder / "first")
        Autoencoder.from_pretrained(tmp_path / folder / "first").save_pretrained(tmp_path / folder / "second")
    here, there = (
        {path.name: path.read_bytes() for path in (tmp_path / folder / "second").iterdir()} for folder in ("here", "there")
    )
    assert here == there
    assert not any(str(tmp_path).encode() in content for content in here.values())
