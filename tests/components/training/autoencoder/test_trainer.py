"""Any number of workers take the same step of the autoencoder, and each part of it is the one its paper defines."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

from components.runtime.world import World
from components.training.autoencoder.config import AutoencoderConfig
from components.training.autoencoder.discriminator import PatchDiscriminator, decoder_loss, discriminator_loss
from components.training.autoencoder.losses import adaptive_weight, latent_loss, picture_loss
from components.training.autoencoder.perceptual import load_lpips
from components.training.autoencoder.state import AutoencoderState, new_state
from components.training.autoencoder.trainer import AutoencoderTrainer, one_cycle
from model.latents.autoencoder import Reconstruction, to_pixels
from tests.components.training.autoencoder.test_perceptual import write_weights
from tests.components.training.autoencoder.test_train import CONFIG, squares

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
EVERYTHING = dataclasses.replace(
    CONFIG,
    loss=dataclasses.replace(CONFIG.loss, reconstruction="l1", gan_weight=0.5, gan_start_step=2, gan_adaptive=True),
    codes=dataclasses.replace(CONFIG.codes, restart_every_steps=2),
    ema_decay=0.9,
    batch_size=3,
    max_steps=3,
    learning_rate=0.001,
)


def take_steps(config: AutoencoderConfig, images: np.ndarray, weights: Path, rank: int, size: int) -> AutoencoderState:
    state = new_state(config, images.shape[1], CPU)
    lpips = load_lpips(weights) if config.kind == "kl" else None
    trainer = AutoencoderTrainer(config, state, images, World(rank, size, CPU), lpips)
    trainer.run(trainer.schedule(lambda line: None, lambda step: None), first_step=1)
    return state


def learnt(state: AutoencoderState) -> tuple[dict[str, torch.Tensor], ...]:
    assert state.discriminator is not None and state.ema_model is not None
    networks = (state.autoencoder, state.discriminator.network, state.ema_model)
    return tuple(network.state_dict() for network in networks)


def in_float32() -> None:
    """bfloat16 would hide how near two results are."""
    torch.cpu._is_amx_tile_supported = torch.cpu._is_avx512_bf16_supported = lambda: False


def _worker(rank: int, folder: str, configs: list[AutoencoderConfig], images: np.ndarray) -> None:
    in_float32()
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for config in configs:
        state = take_steps(config, images, Path(folder) / "weights", rank, 2)
        if rank == 0:
            torch.save([*learnt(state), state.code_counts], f"{folder}/{config.kind}.pt")
    torch.distributed.destroy_process_group()


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum((one[name].double() - other[name].double()).square().sum().item() for name in one))


def test_two_workers_take_the_steps_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    (tmp_path / "weights").mkdir()
    write_weights(tmp_path / "weights", seed=1)
    images = squares(16, seed=13, side_px=32).numpy()
    # Three images are not divided evenly.
    configs = [EVERYTHING, dataclasses.replace(EVERYTHING, kind="vq")]
    torch.multiprocessing.start_processes(_worker, (str(tmp_path), configs, images), nprocs=2, start_method="spawn")
    for config in configs:
        alone = take_steps(config, images, tmp_path / "weights", 0, 1)
        fresh = learnt(new_state(config, 32, CPU))
        *together, counts = torch.load(tmp_path / f"{config.kind}.pt", weights_only=True)
        for start, one, two in zip(fresh, learnt(alone), together, strict=True):
            moved, apart = distance(one, start), distance(one, two)
            print(f"{config.kind}: moved {moved:.4f}, apart {apart:.6f}")
            # Adam moves by about the rate even where a gradient is rounding alone: 1% to 3% on the processors seen.
            assert moved > 0 and apart < 0.06 * moved
        assert torch.equal(counts, alone.code_counts)


@pytest.mark.parametrize("max_steps", [1, 2, 3, 10, 37, 850])
def test_the_cycle_is_torchs(max_steps: int) -> None:
    config = dataclasses.replace(CONFIG, max_steps=max_steps)
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([parameter], lr=1.0, betas=(0.9, 0.95))
    num_steps = max(3, max_steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=num_steps, pct_start=max(0.1, 2 / num_steps)
    )
    for step in range(1, max_steps + 1):
        group, ours = optimiser.param_groups[0], one_cycle(config, step)
        assert ours.learning_rate == pytest.approx(group["lr"], rel=1e-9)
        assert ours.beta1 == pytest.approx(group["betas"][0], rel=1e-9)
        optimiser.step()
        schedule.step()


def test_losses_are_those_of_the_paper() -> None:
    print("seed 14")
    torch.manual_seed(14)
    pixels, decoded = torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8)
    l1 = dataclasses.replace(CONFIG, loss=dataclasses.replace(CONFIG.loss, reconstruction="l1"))
    assert picture_loss(l1, decoded, pixels, None).item() == pytest.approx((decoded - pixels).abs().mean().item())
    assert picture_loss(CONFIG, decoded, pixels, None).item() == pytest.approx((decoded - pixels).square().mean().item())
    mean, log_variance = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    posterior = torch.distributions.Normal(mean.double(), (log_variance.double() / 2).exp())
    divergence = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum()
    # LDM adds sums over all of an image, the mean of images; here their mean over its 3 * 8 * 8 numbers.
    found = latent_loss(CONFIG, Reconstruction(decoded, mean, log_variance))
    assert found.item() == pytest.approx(1e-6 * divergence.item() / 3 / (3 * 8 * 8), rel=1e-5)
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert discriminator_loss(real, fake).item() == pytest.approx(0.5 * (0.25 + 0.5))
    assert decoder_loss(fake).item() == 1.5


def test_the_adaptive_weight_makes_both_gradients_equally_long() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    picture, adversarial = (weight * torch.tensor([3.0, 4.0])).sum(), (weight * torch.tensor([0.0, 0.5])).sum()
    assert adaptive_weight(picture, adversarial, weight, ALONE).item() == pytest.approx(5 / 0.5, rel=1e-3)
    assert adaptive_weight(picture, 0 * adversarial, weight, ALONE).item() == 1e4


def test_the_discriminator_learns_to_tell_and_starts_when_it_should() -> None:
    images = squares(16, seed=15, side_px=32)
    pixels = to_pixels(images)
    config = dataclasses.replace(
        CONFIG, loss=dataclasses.replace(CONFIG.loss, gan_weight=0.5, gan_start_step=3), learning_rate=1e-3, max_steps=16
    )
    state, without = new_state(config, 32, CPU), new_state(dataclasses.replace(config, loss=CONFIG.loss), 32, CPU)
    assert state.discriminator is not None
    trainers = [AutoencoderTrainer(config, one, images.numpy(), ALONE, None) for one in (state, without)]
    trainers[1].config = dataclasses.replace(config, loss=CONFIG.loss)
    first = {name: weight.clone() for name, weight in state.discriminator.network.state_dict().items()}
    equal = []
    for step in range(1, 17):
        for trainer in trainers:
            trainer.train_step(step)
        left, right = (one.autoencoder.network.decoder.conv_out.weight for one in (state, without))
        equal.append(torch.equal(left, right))
        if step == 2:
            assert all(torch.equal(first[name], weight) for name, weight in state.discriminator.network.state_dict().items())
    assert equal[:2] == [True, True] and not any(equal[2:])
    with torch.no_grad():
        decoded = state.autoencoder.decode(state.autoencoder.encode(pixels))
        network = state.discriminator.network
        fresh = PatchDiscriminator()
        taught, untaught = (discriminator_loss(one(pixels), one(decoded)).item() for one in (network, fresh))
    assert taught < untaught - 0.1, (taught, untaught)


def test_averaged_weights_follow_the_recursion() -> None:
    images = squares(8, seed=16).numpy()
    config = dataclasses.replace(CONFIG, ema_decay=0.5, max_steps=5)
    state = new_state(config, 16, CPU)
    trainer = AutoencoderTrainer(config, state, images, ALONE, None)
    weight = state.autoencoder.network.encoder.conv_in.weight
    expected = weight.detach().double()
    for step in range(1, 6):
        trainer.train_step(step)
        kept = min(0.5, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * weight.detach().double()
    assert state.ema_model is not None
    torch.testing.assert_close(state.ema_model.network.encoder.conv_in.weight.double(), expected, atol=1e-6, rtol=1e-5)


def test_what_workers_take_of_a_step_is_the_whole_step() -> None:
    images = squares(20, seed=17).numpy()
    config = dataclasses.replace(CONFIG, batch_size=7)
    state = new_state(config, 16, CPU)
    alone = AutoencoderTrainer(config, state, images, ALONE, None)
    parts = [AutoencoderTrainer(config, state, images, ALONE, None) for _ in range(3)]
    for rank, part in enumerate(parts):
        part.world = World(rank, 3, CPU)
    assert torch.equal(torch.cat([part.pixels_of(4) for part in parts]), alone.pixels_of(4))
    assert torch.equal(torch.cat([part.noise_of(4) for part in parts]), alone.noise_of(4))
    assert sum(part.share() for part in parts) == pytest.approx(1)
    assert not torch.equal(alone.noise_of(5), alone.noise_of(4))


@pytest.mark.parametrize("first_step", [1, 3])
def test_a_training_says_what_it_does_at_once_and_again_after_its_first_step(first_step: int) -> None:
    config = dataclasses.replace(CONFIG, batch_size=2, max_steps=4)
    images, said = squares(6, 1).numpy(), list[str]()
    trainer = AutoencoderTrainer(config, new_state(config, images.shape[1], CPU), images, ALONE, None)
    schedule = trainer.schedule(said.append, lambda step: None)
    assert said == [f"6 images of {images.shape[1]} px; 4 steps of 2"]
    trainer.run(schedule, first_step=first_step)
    assert said[1].startswith(f"step {first_step}/4 | loss ") and "eta" not in said[1]
    assert [line.split(" | ")[0] for line in said[2:]] == ["step 4/4"] and "images/s" in said[2]
