"""What an evaluation reads: the data of this folder, the model, and what of both is noted beside the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from components.data.quarantine import read_keys
from components.evaluation.held_out import HeldOut, read_held_out
from components.evaluation.results import EvaluationTarget
from components.evaluation.training_facts import TrainingFacts, read_training_facts
from components.runtime.cluster import device
from core.tokenizer import load_tokenizer
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion
from pipelines import paths
from pipelines.sections import Params


def target_of(model: Transfusion, origin: Mapping[str, str]) -> EvaluationTarget:
    """A model with the autoencoder and the tokenizer of its data, on the device that there is. origin: of the autoencoder."""
    autoencoder = Autoencoder.from_pretrained(paths.AUTOENCODER)
    return EvaluationTarget(model.to(device()), autoencoder.to(device()), load_tokenizer(paths.TOKENIZER), origin)


def measured_with(params: Params, engine: str) -> dict[str, Any]:
    """Beside figures: the engine of generated pictures and captions, and every seed, count and setting."""
    return {"engine": engine, "settings": asdict(params.evaluate)}


def origin_of(autoencoder: Mapping[str, Any]) -> dict[str, str]:
    """Where the autoencoder of this manifest comes from, and the digest of its weights' file."""
    given = autoencoder.get("pretrained")
    weights = next(entry["sha256"] for name, entry in autoencoder["files"].items() if name.endswith(".safetensors"))
    origin = f"given as autoencoder.pretrained, {given}" if given else "trained on this corpus"
    return {"autoencoder": origin, "autoencoder_sha256": weights}


def read_data(params: Params) -> tuple[HeldOut, TrainingFacts]:
    """Held-out documents, and what is known of the training ones, without what the gates quarantined."""
    bad_documents, bad_latents = (read_keys(paths.QUARANTINE / f"{gate}.jsonl") for gate in ("documents", "latents"))
    config, folders, bad = params.evaluate, (paths.DOCUMENTS, paths.LATENTS), bad_documents | bad_latents
    limits = {"max_images": config.most_images, "max_text_bytes": config.max_text_bytes}
    held_out = read_held_out(*folders, "test", quarantined=bad, **limits)
    return held_out, read_training_facts(*folders, quarantined=bad, num_pictures=config.num_training_pictures, seed=config.seed)
