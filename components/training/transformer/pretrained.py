"""Weights that a training begins with: a bundle's, or those of a text model; checked before a run is opened, then loaded."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.training.transformer.from_llama import Difference, LlamaWeights, differences
from components.training.transformer.pretrained_files import AUTOENCODER, BUNDLE, CONFIG, TOKENIZER, WEIGHTS, kind_of
from core.errors import BadInput
from core.given_tokenizer import given_tokenizer
from core.tokenizer import load_tokenizer
from model.config import PRESETS, ModelConfig
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion

# Documents may be longer or shorter than they were: no weight depends on it.
FREE = ("max_position_embeddings",)
OF_THE_PRESET = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
OF_THE_MODEL = ("prediction_type", "zero_terminal_snr", "experts", "qk_norm")


def check_pretrained(folder: Path, config: ModelConfig, *, tokenizer: Path, autoencoder: Path) -> None:
    """Raise BadInput, in one sentence, where the weights of `folder` are no beginning for this model on this data.

    config: of the model that is to be trained. tokenizer, autoencoder: folders of what the data was encoded with.
    """
    if given_tokenizer(folder / TOKENIZER).digest != load_tokenizer(tokenizer).digest:
        raise BadInput(
            f"train.pretrained: {folder} has another tokenizer than the documents were encoded with; set ingest.tokenizer to"
            f" {folder} and run `dvc repro`"
        )
    if kind_of(folder) == BUNDLE:
        _check_autoencoder(folder, autoencoder)
        _refuse(folder, _differences_of_bundle(folder, config), config)
        return
    _refuse(folder, differences(folder, config), config)
    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in Transfusion(config).state_dict().items()}
    LlamaWeights(folder, config).check(shapes)


@torch.no_grad()
def load_pretrained(model: Transfusion, folder: Path) -> None:
    """Put the weights of `folder`, which `check_pretrained` found nothing against, in place of the model's own.

    What a text model does not have stays as it was drawn.
    """
    weights = _bundle_weights(folder) if kind_of(folder) == BUNDLE else LlamaWeights(folder, model.config)
    for name, parameter in model.state_dict().items():
        value = weights.get(name)
        if value is None:
            continue
        if not value.isfinite().all():
            raise BadInput(f"train.pretrained: {folder} holds numbers that are not finite, in {name}")
        parameter.copy_(value)


def _bundle_weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / WEIGHTS)


def _check_autoencoder(folder: Path, autoencoder: Path) -> None:
    """A latent means something only to the model that learnt latents of the same autoencoder."""
    theirs, ours = (_tensors(Autoencoder.from_pretrained(each)) for each in (folder / AUTOENCODER, autoencoder))
    if (
        theirs.keys() != ours.keys()
        or any(value.shape != ours[name].shape for name, value in theirs.items())
        or not all(torch.equal(value, ours[name]) for name, value in theirs.items())
    ):
        raise BadInput(
            f"train.pretrained: {folder} has another autoencoder than the images were encoded with; set autoencoder.pretrained"
            f" to {folder / AUTOENCODER} and run `dvc repro`"
        )


def _tensors(autoencoder: Autoencoder) -> dict[str, Tensor]:
    """Its weights, and what its latents are normalised by, which its configuration holds."""
    return dict(autoencoder.state_dict()) | dict(autoencoder.named_buffers())


def _differences_of_bundle(folder: Path, config: ModelConfig) -> list[Difference]:
    try:
        theirs = ModelConfig.from_dict(json.loads((folder / CONFIG).read_bytes()))
    except ValueError as error:
        raise BadInput(f"train.pretrained: {folder / CONFIG}: {error}") from None
    before, now = _flat(theirs), _flat(config)
    return [
        Difference(key, before.get(key), now.get(key))
        for key in {**before, **now}
        if key not in FREE and before.get(key) != now.get(key)
    ]


def _flat(config: ModelConfig) -> dict[str, Any]:
    """With the modalities' keys as "image.patch_size"."""
    values = asdict(config)
    for modality in values.pop("modalities"):
        values |= {f"{modality['name']}.{key}": value for key, value in modality.items()}
    return values


def _refuse(folder: Path, found: list[Difference], config: ModelConfig) -> None:
    if found:
        key, theirs, ours = found[0]
        said = f"train.pretrained: {folder} has {key} {theirs!r}, and the model to train {ours!r}"
        raise BadInput(f"{said}; {_remedy(found, config)}")


def _remedy(found: list[Difference], config: ModelConfig) -> str:
    key, theirs = found[0].key, found[0].theirs
    if key in OF_THE_PRESET:
        size = {key: getattr(config, key) for key in OF_THE_PRESET}
        size |= {each.key: each.theirs for each in found if each.key in OF_THE_PRESET}
        fitting = [name for name, preset in PRESETS.items() if preset._asdict() == size]
        return f"set train.model.preset to {' or '.join(fitting)}" if fitting else "no train.model.preset has this size"
    if key in OF_THE_MODEL:
        return f"set train.model.{key} to {json.dumps(theirs)}"
    if key.startswith("image."):
        return "set train.model and encode as they were when it was trained"
    return "a model that is built otherwise cannot be begun with"
