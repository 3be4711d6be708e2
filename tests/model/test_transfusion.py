"""Do sizes, losses, patches and the saved folder mean what they say?"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from model.config import model_config
from model.patches import cut, join
from model.pretrained import load_pretrained, save_pretrained
from model.transfusion import Transfusion, loss_sums, loss_sums_at
from tests.model.conftest import SPECIAL_IDS, pack, random_document, tiny_config, tiny_model

PAPER_MILLIONS = {"0.16b": 162, "0.37b": 374, "0.76b": 778, "1.4b": 1364, "7b": 6738}


@pytest.mark.parametrize("preset", PAPER_MILLIONS)
def test_presets_have_the_papers_size(preset: str) -> None:
    config = model_config(
        preset,
        vocab_size=32_000,
        latent_channels=8,
        patch_side=2,
        objective="epsilon",
        max_length=4096,
        special_ids=SPECIAL_IDS,
    )
    with torch.device("meta"):
        model = Transfusion(config)
    # The paper's figure is the transformer with its embedding and head, without the patch codec.
    counted = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("codec"))
    assert counted / 1e6 == pytest.approx(PAPER_MILLIONS[preset], rel=0.005)


def test_cut_and_join_are_inverse_and_in_raster_order(rng: random.Random) -> None:
    side, height, width = rng.choice([1, 2, 4]), 8, 4
    latents = torch.randn(3, 5, height, width)
    patches = cut(latents, side)
    assert torch.equal(join(patches, channels=5, height=height, width=width, side=side), latents)
    assert torch.equal(patches[1, width // side].view(5, side, side), latents[1, :, side : 2 * side, :side])
    with pytest.raises(ValueError, match="does not divide"):
        cut(torch.randn(1, 1, 6, 6), 4)


def test_losses_equal_a_loop_over_positions(rng: random.Random) -> None:
    model, config = tiny_model(), tiny_config()
    documents = [random_document(rng, 1), random_document(rng, 2)]
    batch = pack([documents, [random_document(rng, 0)]], config, sum(map(len, documents)))
    noise, time = torch.randn_like(batch.patches), torch.rand(len(batch.image_sample))
    with torch.no_grad():
        sums = loss_sums_at(model, batch, noise, time)
        level = time[batch.patch_image].unsqueeze(-1)
        output = model(batch, (1 - level) * batch.patches + level * noise, time)
    text = sum(-F.log_softmax(row, 0)[token] for row, token in zip(output.logits, batch.target, strict=True))
    torch.testing.assert_close(sums.text, torch.as_tensor(text), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sums.image, (output.prediction - (noise - batch.patches)).square().sum(), rtol=1e-5, atol=1e-4)
    assert (sums.num_tokens, sums.num_values) == (len(batch.target), batch.patches.numel())


def test_tokens_after_an_image_count_by_their_weight(rng: random.Random) -> None:
    model, config = tiny_model(), tiny_config()
    batch = pack([[random_document(rng, 1)], [random_document(rng, 0)]], config, 40)
    after = batch.after_image
    only = {
        name: batch._replace(predict_at=batch.predict_at[kept], target=batch.target[kept], after_image=after[kept])
        for name, kept in (("before", ~after), ("after", after))
    }
    with torch.no_grad():
        weighted = loss_sums(model, batch, 0, 0, after_image_weight=3.0)
        before, behind = (loss_sums(model, part, 0, 0) for part in only.values())
    assert behind.num_tokens > 0 and before.num_tokens > 0
    torch.testing.assert_close(weighted.text, before.text + 3 * behind.text, rtol=1e-5, atol=1e-4)
    assert weighted.num_tokens == before.num_tokens + 3 * behind.num_tokens


def test_a_batch_without_images_and_one_without_text_have_losses(rng: random.Random) -> None:
    model, config = tiny_model(), tiny_config()
    text_only = loss_sums(model, pack([[random_document(rng, 0)]], config, 16), seed=0, step=0)
    assert text_only.image == 0 and text_only.num_values == 0 and text_only.text > 0
    image_only = loss_sums(model, pack([[[3, -1, -1]]], config, 4), seed=0, step=0)
    assert image_only.text == 0 and image_only.num_tokens == 0 and image_only.image > 0


def test_overfitting_reproduces_a_document(rng: random.Random) -> None:
    """A few steps on one document bring both losses far down: the gradients reach both halves."""
    torch.manual_seed(0)
    model = Transfusion(tiny_config())
    batch = pack([[random_document(rng, 1)]], model.config, 40)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    noise, time = torch.randn_like(batch.patches), torch.full((1,), 0.5)
    losses = []
    for _ in range(60):
        sums = loss_sums_at(model, batch, noise, time)
        loss = sums.text / sums.num_tokens + sums.image / sums.num_values
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = tiny_model()
    save_pretrained(model, tmp_path)
    back = load_pretrained(tmp_path)
    assert back.config == model.config
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, back.state_dict()[name]), name


def test_impossible_sizes_are_refused() -> None:
    good = tiny_config()
    with pytest.raises(ValueError, match="num_heads"):
        dataclasses.replace(good, num_heads=5)
    with pytest.raises(ValueError, match="preset"):
        model_config(
            "9b",
            vocab_size=9,
            latent_channels=1,
            patch_side=1,
            max_length=9,
            special_ids=SPECIAL_IDS,
            objective="flow",
        )
