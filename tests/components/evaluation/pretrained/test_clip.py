"""The CLIP score by a tiny random CLIP in a folder: a direct computation's, and no number where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.evaluation.generated import HeldOutPictures
from components.evaluation.held_out import ImageDocument, Stored
from components.evaluation.pretrained.clip import measure_clip_score
from components.evaluation.results import EvaluationTarget, Results
from core.files import sha256
from core.png import encode_png
from core.tokenizer import TextTokenizer
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion

SEED, NUM, SIDE = 67, 5, 8
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As openai/clip-vit-large-patch14 is laid out, with random weights."""
    transformers = pytest.importorskip("transformers", reason='pip install -e ".[clip]" adds it')
    path = tmp_path_factory.mktemp("clip")
    tokens = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    (path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    layers: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": len(tokens), "max_position_embeddings": 12, "bos_token_id": 0, "eos_token_id": 1}
    vision = {"image_size": 16, "patch_size": 8}
    torch.manual_seed(SEED)
    config = transformers.CLIPConfig(text_config=layers | text, vision_config=layers | vision, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(path)
    transformers.CLIPTokenizer(str(path / "vocab.json"), str(path / "merges.txt")).save_pretrained(path)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    (path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "CLIPImageProcessor", **size}))
    return path


@pytest.fixture
def target(model: Transfusion, tokenizer: TextTokenizer) -> EvaluationTarget:
    shape = {"layers_per_block": 1, "latent_channels": 4, "norm_groups": 4, "sample_side_px": SIDE}
    return EvaluationTarget(model, Autoencoder.create(block_channels=(8, 8), **shape).eval(), tokenizer)


def pictures(captions: list[str | None]) -> HeldOutPictures:
    stored = Stored(np.zeros(3, np.int64), np.zeros((1, 4, 4, 4), np.float32))
    # Of 16 pixels, which the preparation leaves as they are.
    images = np.random.default_rng(SEED).integers(0, 256, (2, len(captions), 16, 16, 3), np.uint8)
    documents = [
        ImageDocument(f"c/{number}", stored, caption, (encode_png(images[0, number]),), None, ())
        for number, caption in enumerate(captions)
    ]
    return HeldOutPictures(documents, images[1])


def direct(folder: Path, images: np.ndarray, captions: list[str]) -> list[float]:
    """CLIPScore by the model's own logits: cosines times a scale."""
    transformers = pytest.importorskip("transformers")
    model: Any = transformers.CLIPModel.from_pretrained(folder)
    tokens = transformers.CLIPTokenizer.from_pretrained(folder)(captions, padding=True, truncation=True, max_length=12)
    mean, std = (np.array(values) for values in ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]))
    pixels = torch.tensor((images / 255 - mean) / std, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.no_grad():
        ids, mask = torch.tensor(tokens["input_ids"]), torch.tensor(tokens["attention_mask"])
        logits = model(input_ids=ids, attention_mask=mask, pixel_values=pixels).logits_per_image
        return (100 * logits.diagonal() / model.logit_scale.exp()).clamp(0).tolist()


def test_the_score_is_the_models_own_cosine(folder: Path, target: EvaluationTarget) -> None:
    captions = ["a red cat", "a dog", "a dog", "two blue birds in a very long caption indeed", "x"]
    others = [
        "a dog",
        "two blue birds in a very long caption indeed",
        "two blue birds in a very long caption indeed",
        "x",
        "a red cat",
    ]
    asked, results = pictures([*captions]), Results()
    measure_clip_score(results, target, asked, str(folder))
    wanted = {
        "clip/score": direct(folder, asked.generated, captions),
        "clip/score_of_held_out": direct(folder, np.stack([*asked.real()]), captions),
        "clip/score_of_wrong_captions": direct(folder, asked.generated, others),
    }
    assert set(results.metrics) == set(wanted)
    for key, values in wanted.items():
        assert results.items[key].top.tolist() == pytest.approx(values, abs=1e-3), key
        assert results.metrics[key] == pytest.approx(np.mean(values), abs=1e-3)
    assert len({round(value, 3) for value in results.metrics.values()}) == 3
    results.find_intervals(SEED)
    assert set(results.intervals) == set(wanted)
    assert results.facts["clip"]["weights_sha256"] == sha256(folder / "model.safetensors") and results.notes == []


def test_one_caption_for_all_has_no_wrong_one(folder: Path, target: EvaluationTarget) -> None:
    results = Results()
    measure_clip_score(results, target, pictures(["a dog", "a dog"]), str(folder))
    assert set(results.metrics) == {"clip/score", "clip/score_of_held_out"} and len(results.notes) == 1


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("empty", "evaluate.weights.clip is empty: the CLIP score is not run"),
        ("missing", "is no folder of a CLIP model, which holds model.safetensors: the CLIP score is not run"),
        ("no captions", "held-out pictures have no captions: the CLIP score is not run"),
        ("no package", "transformers does not import here"),
    ],
)
def test_without_the_model_there_is_a_sentence_and_no_number(
    target: EvaluationTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, says: str
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    path = {"empty": "", "missing": str(tmp_path / "nowhere")}.get(kind, str(tmp_path))
    if kind == "no package":
        monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    results = Results()
    measure_clip_score(results, target, pictures([None] if kind == "no captions" else ["a dog"]), path)
    (note,) = results.notes
    assert says in note and results.metrics == {}


def test_a_folder_that_holds_something_else_is_said(folder: Path, target: EvaluationTarget, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    results = Results()
    measure_clip_score(results, target, pictures(["a dog"]), str(tmp_path))
    assert "is no CLIP model" in results.notes[0] and results.metrics == {}
