"""A training begins with a bundle's weights, or a text model's, and what does not fit is refused in one sentence."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.data.ingest.corpora import Collected, learn_tokenizer
from components.training.transformer.config import TrainConfig
from components.training.transformer.pretrained import check_pretrained, load_pretrained
from components.training.transformer.pretrained_files import pretrained_digest, pretrained_files
from components.training.transformer.state import configuration, new_state
from components.training.transformer.trainer import TransformerTrainer
from core.errors import BadInput
from core.given_tokenizer import given_tokenizer
from core.tokenizer import SPECIAL_TOKENS
from model.attention.packed import masked_attention
from model.config import ModelConfig, image_modality, model_config
from model.experts import only, shared
from model.transfusion import Transfusion
from tests.components.data.corpora import config_for, corpus_of
from tests.components.training.conftest import CONFIG, Corpus, changed, write_start
from tests.components.training.transformer.test_trainer import ALONE
from tests.components.training.transformer.text_models import TEXTS, reference_logits, write_text_model

TEXT = "a blue nine, and the end"


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("text") / "llama")


@pytest.fixture(scope="module")
def bundle(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_start(corpus, tmp_path_factory.mktemp("bundle") / "start")


def target(folder: Path, **changes: Any) -> ModelConfig:
    """Of a model to train on data that the text model's tokenizer encoded."""
    words = given_tokenizer(folder)
    images = image_modality(channels=4, patch_side=2, patch_layers="linear", unet_channels=(), begin_token_id=3, end_token_id=4)
    made = {"vocab_size": words.vocab_size, "modalities": (images,), "prediction_type": "flow"}
    return model_config("tiny", max_position_embeddings=64, special_ids=words.special_ids, **made | changes)


def logits_of(model: Transfusion, ids: list[int]) -> torch.Tensor:
    """[L, V] of one causal document."""
    position_ids = torch.arange(len(ids)).unsqueeze(0)
    attend = masked_attention(torch.zeros_like(position_ids), position_ids)
    route = shared if model.config.num_experts == 1 else only(0)
    with torch.no_grad():
        x = model.transformer(model.embedding(torch.tensor([ids])), position_ids, attend, route)
        return model.head(x)[0]


def refusal(folder: Path, tmp_path: Path, config: ModelConfig | None = None) -> str:
    given_tokenizer(folder).save(tmp_path)
    with pytest.raises(BadInput) as refused:
        check_pretrained(folder, config or target(folder), tokenizer=tmp_path, autoencoder=tmp_path)
    return str(refused.value)


def test_its_tokens_stand_behind_the_control_tokens(text_model: Path) -> None:
    from tokenizers import Tokenizer

    theirs, ours = Tokenizer.from_file(str(text_model / "tokenizer.json")), given_tokenizer(text_model)
    assert ours.vocab_size == theirs.get_vocab_size() + 5
    assert list(ours.special_ids.values()) == [0, 1, 2, 3, 4]
    for text in (*TEXTS, TEXT, "naïve 三", "<s> is spelt, and <|boi|>"):
        assert ours.decode(ours.encode(text)) == text
        assert min(ours.encode(text)) >= 7  # neither this pipeline's control tokens nor the text model's two
    assert ours.encode(TEXT) == [number + 5 for number in theirs.encode(TEXT).ids]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("is_tied", [False, True])
def test_the_logits_are_those_of_an_independent_llama(tmp_path: Path, is_tied: bool, shards: int) -> None:
    folder = write_text_model(tmp_path / "llama", tie_word_embeddings=is_tied, shards=shards)
    config = target(folder)
    given_tokenizer(folder).save(tmp_path)
    check_pretrained(folder, config, tokenizer=tmp_path, autoencoder=tmp_path)
    model = Transfusion(config)
    patches = model.patch_layers[0].proj_in.weight.clone()  # type: ignore[union-attr]
    load_pretrained(model, folder)
    ids = given_tokenizer(folder).encode(TEXT)
    expected = reference_logits(folder, [number - 5 for number in ids])
    torch.testing.assert_close(logits_of(model, ids)[:, 5:], expected[:, : config.vocab_size - 5], atol=1e-4, rtol=0)
    # What only images go through stays as the seed drew it; a document begins as the text model's do.
    assert torch.equal(model.patch_layers[0].proj_in.weight, patches)  # type: ignore[union-attr]
    assert torch.equal(model.embedding.weight[1:3], model.embedding.weight[5:7])


def test_the_logits_are_those_of_transformers(text_model: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LlamaForCausalLM.from_pretrained(text_model).eval()
    model = Transfusion(target(text_model))
    load_pretrained(model, text_model)
    ids = given_tokenizer(text_model).encode(TEXT)
    with torch.no_grad():
        expected = theirs(torch.tensor([[number - 5 for number in ids]])).logits[0]
    torch.testing.assert_close(logits_of(model, ids)[:, 5:], expected[:, : model.config.vocab_size - 5], atol=1e-4, rtol=0)


@pytest.mark.parametrize("experts", ["feed_forward", "full"])
def test_text_and_images_both_begin_with_the_text_models_weights(text_model: Path, experts: str) -> None:
    model = Transfusion(target(text_model, experts=experts))
    load_pretrained(model, text_model)
    ids = given_tokenizer(text_model).encode(TEXT)
    expected = reference_logits(text_model, [number - 5 for number in ids])
    torch.testing.assert_close(logits_of(model, ids)[:, 5:], expected[:, : model.config.vocab_size - 5], atol=1e-4, rtol=0)
    weights, layer = model.state_dict(), "transformer.blocks.1.feed_forward"
    assert torch.equal(weights[f"{layer}.0.gate_up.weight"], weights[f"{layer}.1.gate_up.weight"])


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"num_key_value_heads": 1}, "num_key_value_heads 1, and the model to train 2"),
        ({"rope_theta": 500000.0}, "rope_theta 500000.0, and the model to train 10000.0"),
        ({"rope_parameters": {"rope_theta": 130000.0, "rope_type": "default"}}, "rope_theta 130000.0"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_type 'llama3', and the model to train 'default'"),
        ({"rms_norm_eps": 1e-6}, "rms_norm_eps 1e-06, and the model to train 1e-05"),
        ({"attention_bias": True}, "attention_bias True, and the model to train False"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"head_dim": 32}, "head_dim 32, and the model to train 16"),
        ({"rope_scaling": ["linear"]}, "has rope_scaling ['linear'], which is no table"),
        ({"num_attention_heads": "4"}, "has num_attention_heads '4', which is no whole number"),
        ({"hidden_size": [32]}, "has hidden_size [32], which is no whole number"),
        ({"model_type": "qwen3"}, "model_type 'qwen3', and the model to train 'llama'"),
        ({"num_hidden_layers": 4}, "num_hidden_layers 4, and the model to train 2; no train.model.preset has this size"),
        (
            {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008},
            "hidden_size 4096, and the model to train 32; set train.model.preset to 7b",
        ),
    ],
)
def test_what_is_built_otherwise_is_refused(text_model: Path, tmp_path: Path, facts: dict[str, Any], said: str) -> None:
    folder = tmp_path / "other"
    shutil.copytree(text_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | facts))
    assert said in refusal(folder, tmp_path)


def test_a_model_with_normalised_queries_is_refused(text_model: Path, tmp_path: Path) -> None:
    said = refusal(text_model, tmp_path, target(text_model, qk_norm=True))
    assert said.endswith("has qk_norm False, and the model to train True; set train.model.qk_norm to false")


def test_tensors_that_are_missing_too_many_or_of_another_shape(text_model: Path, tmp_path: Path) -> None:
    tensors = load_file(text_model / "model.safetensors")
    value, bias = "model.layers.1.self_attn.v_proj.weight", "model.layers.0.self_attn.q_proj.bias"
    for name, (changes, said) in {
        "less": ({value: None}, f"holds no {value}, of which our transformer.blocks.1.attention.0.qkv.weight is made"),
        "more": ({bias: torch.zeros(32)}, f"holds {bias}"),
        "other": ({value: torch.zeros(16, 32)}, "for our transformer.blocks.1.attention.0.qkv.weight [96, 32]"),
        "few": ({"lm_head.weight": torch.zeros(100, 32)}, "[100, 32] for our head.weight"),
    }.items():
        changed_tensors = {key: tensor for key, tensor in (tensors | changes).items() if tensor is not None}
        folder = write_text_model(tmp_path / name, tensors=changed_tensors)
        assert said in refusal(folder, tmp_path)


def test_weights_that_are_no_numbers(text_model: Path, tmp_path: Path) -> None:
    tensors = load_file(text_model / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    folder = write_text_model(tmp_path / "broken", tensors=tensors)
    with pytest.raises(BadInput, match=r"not finite, in transformer.norms.0.weight"):
        load_pretrained(Transfusion(target(folder)), folder)


def test_folders_that_hold_no_beginning(text_model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="is no bundle"):
        pretrained_digest(tmp_path / "empty")
    folder = tmp_path / "half"
    shutil.copytree(text_model, folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match=r"tokenizer.json is missing; AutoTokenizer"):
        pretrained_files(folder)
    folder = write_text_model(tmp_path / "shards", shards=2)
    (folder / "model-00002.safetensors").unlink()
    with pytest.raises(BadInput, match=r"model-00002.safetensors is missing, which the index lists"):
        pretrained_files(folder)
    for index in ([], {"weight_map": ["model-00001.safetensors"]}, {"weight_map": {"lm_head.weight": 1}}, {}):
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(BadInput, match=r"index.json has no weight_map, a table of tensors and their files"):
            pretrained_files(folder)


def test_data_of_another_tokenizer(corpus: Corpus, text_model: Path) -> None:
    config = configuration(CONFIG, corpus.rows("train"))
    with pytest.raises(BadInput, match=re.escape(f"set ingest.tokenizer to {text_model} and run `dvc repro`")):
        check_pretrained(text_model, config, tokenizer=corpus.tokenizer, autoencoder=corpus.autoencoder)


def test_a_tokenizer_that_is_none_or_collides(text_model: Path, tmp_path: Path) -> None:
    tree = json.loads((text_model / "tokenizer.json").read_text())
    for name, change, said in (
        ("unigram", {"model": {"type": "Unigram", "vocab": []}}, "holds a Unigram tokenizer, no BPE"),
        ("none", {"model": None}, "is no tokenizer"),
        ("number", {"model": tree["model"] | {"vocab": {"a": "0"}}}, "is no tokenizer"),
        ("added", {"added_tokens": [{"id": 0}]}, "is no tokenizer"),
        ("own", {"added_tokens": [*tree["added_tokens"], tree["added_tokens"][0] | {"content": "<|boi|>"}]}, "<|boi|> of its"),
    ):
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(tree | change))
        with pytest.raises(BadInput, match=re.escape(said)):
            given_tokenizer(file)
    with pytest.raises(BadInput, match="cannot be read"):
        given_tokenizer(tmp_path / "away.json")


def test_a_tokenizer_of_this_pipeline_is_taken_as_it_is(corpus: Corpus) -> None:
    ours = given_tokenizer(corpus.tokenizer)
    assert {each for token in SPECIAL_TOKENS.values() for each in ours.encode(token)}.isdisjoint(range(5))
    assert ours.digest == given_tokenizer(corpus.tokenizer / "tokenizer.json").digest


def test_ingest_takes_a_given_tokenizer_instead_of_learning_one(text_model: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(config_for(corpus_of("image_folder", tmp_path)), tokenizer=str(text_model))
    found = learn_tokenizer(config, tmp_path / "documents that are not read", Collected({}, {}))
    assert found.digest == given_tokenizer(text_model).digest


def test_a_bundles_weights_are_where_training_begins(corpus: Corpus, bundle: Path) -> None:
    rows = corpus.rows("train")
    check_pretrained(bundle, configuration(CONFIG, rows), tokenizer=corpus.tokenizer, autoencoder=corpus.autoencoder)
    state, weights = new_state(CONFIG, rows, ALONE, bundle), load_file(bundle / "model.safetensors")
    for model in (state.model, state.ema_model):
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    trainer = TransformerTrainer(CONFIG, state, rows, corpus.rows("validation"), ALONE)
    trainer.train_step(1)
    assert not torch.equal(state.model.head.weight, weights["head.weight"])


def test_a_bundle_of_another_kind_of_model(corpus: Corpus, bundle: Path) -> None:
    def said(config: TrainConfig) -> str:
        wanted = configuration(config, corpus.rows("train"))
        with pytest.raises(BadInput) as refused:
            check_pretrained(bundle, wanted, tokenizer=corpus.tokenizer, autoencoder=corpus.autoencoder)
        return str(refused.value)

    choice = dataclasses.replace(CONFIG.model, prediction_type="v")
    expected = "has prediction_type 'flow', and the model to train 'v'; set train.model.prediction_type to \"flow\""
    assert said(changed(model=choice)).endswith(expected)
    choice = dataclasses.replace(CONFIG.model, preset="demo")
    assert said(changed(model=choice)).endswith(
        "has hidden_size 32, and the model to train 256; set train.model.preset to tiny"
    )


@pytest.mark.parametrize("changed", ["weights", "normalisation"])
def test_images_of_another_autoencoder(corpus: Corpus, bundle: Path, tmp_path: Path, changed: str) -> None:
    shutil.copytree(corpus.autoencoder, tmp_path / "autoencoder")
    if changed == "weights":
        file = tmp_path / "autoencoder/diffusion_pytorch_model.safetensors"
        weights = load_file(file)
        name = next(iter(weights))
        save_file(weights | {name: weights[name] + 1}, file, metadata={"format": "pt"})
    else:
        file = tmp_path / "autoencoder/config.json"
        facts = json.loads(file.read_text())
        channels = facts["latent_channels"]
        file.write_text(json.dumps(facts | {"latents_mean": [0.25] * channels, "latents_std": [2.0] * channels}))
    config = configuration(CONFIG, corpus.rows("train"))
    with pytest.raises(BadInput, match=re.escape(f"set autoencoder.pretrained to {bundle / 'autoencoder'} and run")):
        check_pretrained(bundle, config, tokenizer=corpus.tokenizer, autoencoder=tmp_path / "autoencoder")


def test_the_digest_is_of_what_is_begun_with(bundle: Path, text_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(text_model, copy)
    assert pretrained_digest(copy) == pretrained_digest(text_model)
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert pretrained_digest(copy) != pretrained_digest(text_model)
    damaged = tmp_path / "bundle"
    shutil.copytree(bundle, damaged)
    assert pretrained_digest(damaged) == pretrained_digest(bundle)
    (damaged / "model.safetensors").write_bytes(np.random.default_rng(1).bytes(100))
    with pytest.raises(BadInput, match="does not have the bytes its manifest lists; copy the bundle again"):
        pretrained_digest(damaged)
