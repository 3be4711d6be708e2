"""Features of pictures: the encoder's, averaged over places, whitened by training pictures, few whatever the autoencoder."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from components.evaluation.distribution import features
from components.evaluation.distribution.features import MOST_FEATURES, FeatureSpace, activations_of
from model.latents.autoencoder import Autoencoder, QuantisedAutoencoder, to_pixels
from model.latents.sizes import AutoencoderSize

SIZE = AutoencoderSize((8, 16), 1, 4, 4)


def pictures(num: int, side: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, side, side, 3), np.uint8)


@pytest.fixture(scope="module", params=["kl", "vq"])
def autoencoder(request: pytest.FixtureRequest) -> Autoencoder:
    torch.manual_seed(3)
    if request.param == "vq":
        return QuantisedAutoencoder.with_codes(SIZE, num_codes=32, code_dim=4, sample_side_px=16).eval()
    return Autoencoder.create(
        block_channels=SIZE.block_channels, layers_per_block=1, latent_channels=4, norm_groups=4, sample_side_px=16
    ).eval()


def test_they_are_what_the_last_convolution_of_the_encoder_is_given(autoencoder: Autoencoder) -> None:
    images, encoder = pictures(3), autoencoder.network.encoder
    with torch.no_grad():
        x = encoder.conv_in(to_pixels(torch.from_numpy(images)))
        for block in encoder.down_blocks:
            x = block(x)
        wanted = torch.nn.functional.silu(encoder.conv_norm_out(encoder.mid_block(x))).mean((2, 3))
    np.testing.assert_allclose(activations_of(autoencoder, images), wanted, rtol=1e-5, atol=1e-6)


def test_their_number_is_that_of_the_channels_whatever_the_pictures_size(autoencoder: Autoencoder) -> None:
    for side in (8, 16, 32):
        assert activations_of(autoencoder, pictures(2, side)).shape == (2, 16)


def test_neighbours_in_a_pass_do_not_matter(autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    together = activations_of(autoencoder, pictures(5))
    monkeypatch.setattr(features, "MOST_A_PASS", 2)
    np.testing.assert_allclose(activations_of(autoencoder, pictures(5)), together, rtol=1e-5, atol=1e-6)
    assert not autoencoder.network.encoder.conv_out._forward_pre_hooks


def test_no_more_pictures_are_decoded_than_a_pass_takes(autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: of large ones a thousand would be gigabytes."""
    held = 0
    most = 0

    class Held(np.ndarray):
        def __del__(self) -> None:
            nonlocal held
            held -= 1

    def decoded() -> Iterator[np.ndarray]:
        nonlocal held, most
        for image in pictures(40):
            held += 1
            most = max(most, held)
            yield image.copy().view(Held)

    monkeypatch.setattr(features, "PIXELS_A_PASS", 5 * 16 * 16)
    found = FeatureSpace(autoencoder, decoded())
    assert most <= 10
    np.testing.assert_array_equal(found.of(pictures(7)), FeatureSpace(autoencoder, pictures(40)).of(pictures(7)))


def test_of_training_pictures_they_have_mean_0_and_deviation_1(
    autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = pictures(60)
    found = FeatureSpace(autoencoder, training).of(training)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-9)
    covariance = np.cov(found, rowvar=False)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-6)
    assert np.diag(covariance).max() == pytest.approx(1, abs=0.01)
    # A direction of far less variance than the others is damped, so that it is not rounding that is compared.
    monkeypatch.setattr(features, "LEAST_VARIANCE", 1.0)
    assert np.cov(FeatureSpace(autoencoder, training).of(training), rowvar=False).max() < 0.95


def test_of_a_wide_autoencoder_they_are_so_many_and_no_more() -> None:
    torch.manual_seed(4)
    shape = {"layers_per_block": 1, "latent_channels": 4, "norm_groups": 4, "sample_side_px": 8}
    wide = Autoencoder.create(block_channels=(8, 96), **shape).eval()
    found = activations_of(wide, pictures(3, 8))
    assert found.shape == (3, MOST_FEATURES)
    np.testing.assert_array_equal(found, activations_of(wide, pictures(3, 8)))


def test_training_pictures_that_are_alike_give_finite_ones(autoencoder: Autoencoder) -> None:
    space = FeatureSpace(autoencoder, np.repeat(pictures(1), 9, axis=0))
    assert np.isfinite(space.of(pictures(4))).all()
