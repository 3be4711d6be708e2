"""Sizes and losses mean what they say, a model without images is a plain Llama, and its folder holds it completely."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.nn import functional as F

from model.config import RENAMED, RENAMED_OF_MODALITY, ModelConfig, PredictionType, model_config
from model.diffusion.noise import TimedNoise
from model.loss import loss_sums, loss_sums_at
from model.loss_options import PLAIN
from model.transfusion import Transfusion
from tests.model.conftest import SPECIAL_IDS, pack, random_document, tiny_config, tiny_model

# Layers, width, heads, SwiGLU's hidden width, millions of parameters: the paper's table.
PAPER = {
    "0.16b": (16, 768, 12, 2048, 162),
    "0.37b": (24, 1024, 16, 2816, 374),
    "0.76b": (24, 1536, 24, 4096, 778),
    "1.4b": (24, 2048, 16, 5632, 1364),
    "7b": (32, 4096, 32, 11008, 6738),
}
VARIANTS: list[dict[str, Any]] = [{}, {"qk_norm": True}, {"experts": "feed_forward"}, {"experts": "full", "qk_norm": True}]


def preset_config(preset: str, **changes: Any) -> ModelConfig:
    config = model_config(
        preset,
        vocab_size=32_000,
        modalities=tiny_config().modalities,
        prediction_type="epsilon",
        max_position_embeddings=4096,
        special_ids=SPECIAL_IDS,
    )
    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize("preset", PAPER)
def test_presets_have_the_papers_sizes(preset: str) -> None:
    config = preset_config(preset)
    with torch.device("meta"):
        model = Transfusion(config)
    *sizes, millions = PAPER[preset]
    assert [config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size] == sizes
    # The paper's figure is the transformer with its embedding and head, without the patch layers.
    counted = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("patch_layers"))
    assert counted / 1e6 == pytest.approx(millions, rel=0.005)


def test_losses_equal_a_loop_over_positions(rng: random.Random) -> None:
    model, config = tiny_model(), tiny_config()
    documents = [random_document(rng, 1), random_document(rng, 2)]
    batch = pack([documents, [random_document(rng, 0)]], config, sum(map(len, documents)))
    (images,) = batch.latents
    drawn = TimedNoise(noise=torch.randn_like(images.patches), time=torch.rand(len(images.sample_index)))
    with torch.no_grad():
        sums = loss_sums_at(model, batch, [drawn], PLAIN)
        level = drawn.time[images.latent_index].unsqueeze(-1)
        x_t = (1 - level) * images.patches + level * drawn.noise
        hidden = model.hidden(batch, [x_t], [drawn.time]).states
        (prediction,) = model(batch, [x_t], [drawn.time]).predictions
        logits = model.head(hidden[batch.loss_positions])
    text = sum(-F.log_softmax(row, 0)[token] for row, token in zip(logits, batch.labels, strict=True))
    torch.testing.assert_close(sums.text, torch.as_tensor(text), rtol=1e-5, atol=1e-4)
    error = (prediction - (drawn.noise - images.patches)).square().sum()
    torch.testing.assert_close(sums.image, error, rtol=1e-5, atol=1e-4)
    assert (sums.num_tokens, sums.num_values) == (len(batch.labels), images.patches.numel())


def test_errors_are_told_apart_by_the_latents_noise_level_and_unweighted(rng: random.Random) -> None:
    model, config = tiny_model(), tiny_config()
    batch = pack([[random_document(rng, 2), random_document(rng, 3)]], config, 400)
    (images,) = batch.latents
    # A band's lower end is in it, and 1 is in the last one; nothing is in the third.
    time = torch.tensor([0.1, 0.25, 0.49, 0.75, 1.0])
    drawn = TimedNoise(noise=torch.randn_like(images.patches), time=time)
    with torch.no_grad():
        sums = loss_sums_at(model, batch, [drawn], dataclasses.replace(PLAIN, snr_gamma=2.0))
        level = time[images.latent_index].unsqueeze(-1)
        x_t = (1 - level) * images.patches + level * drawn.noise
        (prediction,) = model(batch, [x_t], [time]).predictions
    each = (prediction - (drawn.noise - images.patches)).square()
    bands = [[0], [1, 2], [], [3, 4]]
    here = [torch.isin(images.latent_index, torch.tensor(band, dtype=torch.int64)) for band in bands]
    wanted = [*(each[some].sum().item() for some in here), *(float(each[some].numel()) for some in here)]
    assert sums.by_time.tolist() == pytest.approx(wanted, rel=1e-5)


def test_tokens_after_an_image_count_by_their_weight(rng: random.Random) -> None:
    model, config = tiny_model(), tiny_config()
    batch = pack([[random_document(rng, 1)], [random_document(rng, 0)]], config, 40)
    after = batch.after_image
    only = {
        name: batch._replace(loss_positions=batch.loss_positions[kept], labels=batch.labels[kept], after_image=after[kept])
        for name, kept in (("before", ~after), ("after", after))
    }
    with torch.no_grad():
        weighted = loss_sums(model, batch, 0, 0, dataclasses.replace(PLAIN, after_image_weight=3.0))
        before, behind = (loss_sums(model, part, 0, 0, PLAIN) for part in only.values())
    assert behind.num_tokens > 0 and before.num_tokens > 0
    torch.testing.assert_close(weighted.text, before.text + 3 * behind.text, rtol=1e-5, atol=1e-4)
    assert weighted.num_tokens == before.num_tokens + 3 * behind.num_tokens


def test_z_loss_is_the_squared_normaliser(rng: random.Random) -> None:
    model, config = tiny_model(), tiny_config()
    batch = pack([[random_document(rng, 0)]], config, 16)
    with torch.no_grad():
        plain, penalised = (
            loss_sums(model, batch, 0, 0, dataclasses.replace(PLAIN, z_loss_weight=weight)).text for weight in (0.0, 0.25)
        )
        nothing = [(torch.zeros(0, config.image.patch_dim), torch.zeros(0))]
        stream = model.hidden(batch, [nothing[0][0]], [nothing[0][1]]).states
        normaliser = model.head(stream[batch.loss_positions]).double().exp().sum(-1).log()
    torch.testing.assert_close((penalised - plain).double(), 0.25 * normaliser.square().sum(), rtol=1e-4, atol=1e-4)


def test_a_batch_without_images_and_one_without_text_have_losses(rng: random.Random) -> None:
    model, config = tiny_model(), tiny_config()
    text_only = loss_sums(model, pack([[random_document(rng, 0)]], config, 16), 0, 0, PLAIN)
    assert text_only.image == 0 and text_only.num_values == 0 and text_only.text > 0
    image_only = loss_sums(model, pack([[[3, -1, -1]]], config, 4), 0, 0, PLAIN)
    assert image_only.text == 0 and image_only.num_tokens == 0 and image_only.image > 0


def _plain_llama_loss(model: Transfusion, tokens: list[int]) -> torch.Tensor:
    """Next-token cross-entropy of one document by a Llama written out: complex rotations, one head and layer at a time."""
    config = model.config
    weights = {name: weight.detach().double() for name, weight in model.named_parameters()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt() * weights[name]

    half = config.head_dim // 2
    angle = torch.arange(len(tokens)).double()[:, None] * config.rope_theta ** (-torch.arange(half).double() / half)
    cos_sin = torch.polar(torch.ones_like(angle), angle)

    def turned(x: torch.Tensor) -> torch.Tensor:
        z = torch.complex(x[:, :half], x[:, half:]) * cos_sin
        return torch.cat([z.real, z.imag], dim=-1)

    x = weights["embedding.weight"][tokens]
    for layer in range(config.num_hidden_layers):
        at = f"transformer.blocks.{layer}."
        query, key, value = (
            norm(x, at + "attention.0.norm.weight") @ part.T for part in weights[at + "attention.0.qkv.weight"].chunk(3)
        )
        heads = []
        for head in range(config.num_attention_heads):
            own = slice(head * config.head_dim, (head + 1) * config.head_dim)
            scores = turned(query[:, own]) @ turned(key[:, own]).T / config.head_dim**0.5
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
            heads.append(scores.softmax(-1) @ value[:, own])
        x = x + torch.cat(heads, dim=-1) @ weights[at + "attention.0.out.weight"].T
        gate, up = (
            norm(x, at + "feed_forward.0.norm.weight") @ part.T
            for part in weights[at + "feed_forward.0.gate_up.weight"].chunk(2)
        )
        x = x + (gate * gate.sigmoid() * up) @ weights[at + "feed_forward.0.down.weight"].T
    logits = norm(x, "transformer.norms.0.weight") @ weights["head.weight"].T
    return F.cross_entropy(logits[:-1], torch.tensor(tokens[1:]), reduction="sum")


def test_a_text_only_model_loses_what_a_plain_llama_loses(rng: random.Random) -> None:
    model = tiny_model(seed=rng.randrange(1000), modalities=())
    documents = [random_document(rng, 0) for _ in range(5)]
    batch = pack([documents[:3], documents[3:]], model.config, sum(map(len, documents)))
    assert batch.latents == ()
    sums = loss_sums(model, batch, 0, 0, PLAIN)
    expected = sum(_plain_llama_loss(model, document) for document in documents)
    torch.testing.assert_close(sums.text.double(), torch.as_tensor(expected), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_experts_cost_no_arithmetic_and_take_their_own_positions(changes: dict[str, Any], rng: random.Random) -> None:
    """With every expert's weights alike, nothing changes; with one expert's changed, only what saw its positions."""
    shared = tiny_model(qk_norm=changes.get("qk_norm", False))
    model = tiny_model(**changes)
    own = dict(shared.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parts = name.split(".")
            if parts[0] == "transformer":
                parts[4 if parts[1] == "blocks" else 2] = "0"
            parameter.copy_(own[".".join(parts)])
    documents = [random_document(rng, 2), random_document(rng, 0)]
    batch = pack([documents], shared.config, sum(map(len, documents)) + 2)
    one, other = loss_sums(shared, batch, 3, 4, PLAIN), loss_sums(model, batch, 3, 4, PLAIN)
    torch.testing.assert_close(one.text, other.text, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.image, other.image, rtol=1e-5, atol=1e-5)
    if model.config.num_experts > 1:
        other.text.backward(retain_graph=True)
        alone = pack([[random_document(rng, 0)]], shared.config, 16)
        model.zero_grad()
        loss_sums(model, alone, 3, 4, PLAIN).text.backward()
        image_expert = [p.grad for name, p in model.named_parameters() if "feed_forward.1" in name]
        assert image_expert and all(gradient is None or not gradient.any() for gradient in image_expert)


@pytest.mark.parametrize("experts", ["shared", "feed_forward", "full"])
def test_experts_keep_the_operations_of_a_token(experts: str, rng: random.Random) -> None:
    """Counted by torch: a forward pass of any expert layout does the same matrix work."""
    from torch.utils.flop_counter import FlopCounterMode

    documents = [random_document(rng, 2), random_document(rng, 1)]
    counts = []
    for layout in ("shared", experts):
        model = tiny_model(experts=layout)
        batch = pack([documents], model.config, sum(map(len, documents)))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            loss_sums(model, batch, 0, 0, PLAIN)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_overfitting_reproduces_a_document(rng: random.Random) -> None:
    """A few steps on one document bring both losses far down: the gradients reach both halves."""
    torch.manual_seed(0)
    model = Transfusion(tiny_config())
    batch = pack([[random_document(rng, 1)]], model.config, 40)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    drawn = TimedNoise(noise=torch.randn_like(batch.latents[0].patches), time=torch.full((1,), 0.5))
    losses = []
    for _ in range(60):
        sums = loss_sums_at(model, batch, [drawn], PLAIN)
        loss = sums.text / sums.num_tokens + sums.image / sums.num_values
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_attention_heads", 5), ("prediction_type", "score"), ("experts", "many"), ("zero_terminal_snr", True)],
)
def test_impossible_configurations_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(tiny_config(), **{field: value})


@pytest.mark.parametrize(("old", "new"), [*RENAMED.items(), *RENAMED_OF_MODALITY.items()])
def test_a_key_of_before_is_refused_with_its_new_name(old: str, new: str) -> None:
    values = json.loads(json.dumps(tiny_config().to_dict()))
    place = values["modalities"][0] if old in RENAMED_OF_MODALITY else values
    place[old] = place.pop(new)
    with pytest.raises(ValueError, match=f"^{old} is now called {new}; train the model anew"):
        ModelConfig.from_dict(values)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ValueError, match="preset: '9b'"):
        preset_config("9b")


def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = tiny_model(experts="feed_forward", qk_norm=True)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    back = Transfusion.from_pretrained(tmp_path)
    assert back.config == model.config
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, back.state_dict()[name]), name


def test_weights_of_another_size_and_unknown_keys_are_refused(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"intermediate_size": 32}))
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit config\.json"):
        Transfusion.from_pretrained(tmp_path)
    path.write_text(json.dumps(values | {"depth": 3}))
    with pytest.raises(ValueError, match="depth"):
        Transfusion.from_pretrained(tmp_path)


def test_a_model_that_predicts_noise_without_the_skip_is_refused_and_others_are_read() -> None:
    """config.json of a version before the skip: what such a network says of the noise would be taken for a velocity."""
    for prediction_type in get_args(PredictionType):
        values = {key: value for key, value in tiny_config(prediction_type).to_dict().items() if key != "noise_skip"}
        if prediction_type != "epsilon":
            assert ModelConfig.from_dict(values) == tiny_config(prediction_type)
            with pytest.raises(ValueError, match="noise_skip: True does not go with"):
                ModelConfig.from_dict({**values, "noise_skip": True})
            continue
        with pytest.raises(ValueError, match=r"noise_skip: False does not go with .*'epsilon'.* train it anew"):
            ModelConfig.from_dict(values)
