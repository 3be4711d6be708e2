"""The CLIP score: how well pictures fit their captions, as a CLIP model of others sees it (arXiv 2104.08718).

The cosine of a picture's and its caption's vectors, times 100, on average; below 0 counts as 0. It needs the package
transformers (the extra clip) and the folder of a CLIP model as Hugging Face lays it out; nothing is downloaded.

Legend: N pictures, D numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from components.evaluation.diffusion import other_captions
from components.evaluation.generated import HeldOutPictures
from components.evaluation.images import in_batches
from components.evaluation.intervals import items_of
from components.evaluation.results import EvaluationTarget, Results
from components.runtime.diagnosis import first_line
from core.files import sha256
from core.metric_keys import GENERATED_FOR

KEY = "evaluate.weights.clip"
WEIGHTS = "model.safetensors"
# Pictures and captions of one pass.
AT_ONCE = 32


class Clip(NamedTuple):
    """An opened CLIP, of transformers' classes."""

    model: Any
    tokenizer: Any
    processor: Any


def measure_clip_score(results: Results, target: EvaluationTarget, pictures: HeldOutPictures, weights: str) -> None:
    """Of generated pictures with their own captions, with another's, and of the held-out pictures. weights: a folder's path.

    Another's is the next caption that differs, round about. A note, and no number, where something is missing.
    """
    captions = [document.caption for document in pictures.documents if document.caption is not None]
    folder, device = Path(weights), target.autoencoder.latent_mean.device
    if weights and len(captions) < len(pictures.documents):
        results.notes.append("held-out pictures have no captions: the CLIP score is not run")
        return
    clip, why = loaded(folder, device) if weights else (None, f"{KEY} is empty")
    if clip is None:
        results.notes.append(f"{why}: the CLIP score is not run")
        return
    texts = text_vectors(clip, captions, device)
    generated, real = (image_vectors(clip, images, device) for images in (pictures.generated, pictures.real()))
    names = [document.name for document in pictures.documents]
    drawn = [f"{GENERATED_FOR}{name}" for name in names]
    _enter(results, "clip/score", drawn, generated, texts)
    _enter(results, "clip/score_of_held_out", names, real, texts)
    others = other_captions(pictures.documents)
    if others:
        _enter(results, "clip/score_of_wrong_captions", drawn, generated, texts[others])
    else:
        results.notes.append("held-out captions are all the same: the CLIP score of wrong ones is not run")
    results.facts["clip"] = {
        "weights": folder.name,
        "weights_sha256": sha256(folder / WEIGHTS),
        "num_pictures": len(names),
    }


def loaded(folder: Path, device: torch.device) -> tuple[Clip | None, str]:
    """The model of a folder and "", or None and why there is none."""
    if not (folder / WEIGHTS).is_file():
        return None, f"{KEY}: {folder} is no folder of a CLIP model, which holds {WEIGHTS}"
    try:
        from transformers import CLIPModel, CLIPTokenizer  # pyright: ignore[reportMissingImports]
        from transformers.models.clip.image_processing_pil_clip import (  # pyright: ignore[reportMissingImports]
            CLIPImageProcessorPil,
        )
    except ImportError as error:
        return None, f'{KEY}: transformers does not import here ({error}); pip install -e ".[clip]" adds it'
    try:
        # Of pictures PIL's resizing, as in the model's own preparation.
        classes: tuple[Any, ...] = (CLIPModel, CLIPTokenizer, CLIPImageProcessorPil)
        model, tokenizer, processor = (each.from_pretrained(folder, local_files_only=True) for each in classes)
        return Clip(model.to(device).eval(), tokenizer, processor), ""
    except Exception as error:
        # transformers raises whatever its parts do.
        return None, f"{KEY}: {folder} is no CLIP model ({first_line(error)[:120]})"


@torch.inference_mode()
def text_vectors(clip: Clip, captions: Sequence[str], device: torch.device) -> np.ndarray:
    """Of length 1, float64 [N, D]; what is longer than the model reads is cut off."""
    longest = clip.model.config.text_config.max_position_embeddings
    found = []
    for start in range(0, len(captions), AT_ONCE):
        part = list(captions[start : start + AT_ONCE])
        tokens = clip.tokenizer(part, padding="max_length", truncation=True, max_length=longest, return_tensors="pt")
        found.append(clip.model.get_text_features(**tokens.to(device)).pooler_output.cpu())
    return _unit(torch.cat(found))


@torch.inference_mode()
def image_vectors(clip: Clip, images: Iterable[np.ndarray], device: torch.device) -> np.ndarray:
    """Of N images uint8 [height, width, 3], of length 1: float64 [N, D]."""
    found = []
    for batch in in_batches(images, AT_ONCE):
        part = [Image.fromarray(image) for image in batch]
        pixels = clip.processor(images=part, return_tensors="pt")
        found.append(clip.model.get_image_features(**pixels.to(device)).pooler_output.cpu())
    return _unit(torch.cat(found))


def _unit(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors.double(), dim=-1).numpy()


def _enter(results: Results, key: str, names: Sequence[str], images: np.ndarray, texts: np.ndarray) -> None:
    cosines = (images * texts).sum(1)
    results.add_items(key, items_of(names, 100 * cosines.clip(0), np.ones(len(cosines))))
