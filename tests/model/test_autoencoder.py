"""Are latents normalised by whichever convention the folder follows, and is a saved autoencoder the same one?"""

from __future__ import annotations

from pathlib import Path

import torch

from model.autoencoder import Autoencoder, to_images, to_pixels


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
