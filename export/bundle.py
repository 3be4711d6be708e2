"""A bundle: one folder that holds a whole model, checked byte for byte when it is opened.

config.json, model.safetensors    the transformer, as Hugging Face lays models out
autoencoder/                      the image autoencoder, a diffusers folder
tokenizer.json                    byte-level BPE
generation_config.json            sizes that generation needs
step.onnx (+ .data)               one generation step on a slot cache
vae_encoder.onnx, vae_decoder.onnx
README.md                         the model card
manifest.json                     every file's size and sha256, and its own
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from export.failure import ExportRefused
from export.graph_files import check_graph
from export.manifest import AGAIN, MANIFEST, read_bytes, read_manifest
from model.config import Modality, ModelConfig

KIND = "bundle"
STEP_GRAPH, ENCODER_GRAPH, DECODER_GRAPH = "step.onnx", "vae_encoder.onnx", "vae_decoder.onnx"
TOKENIZER, AUTOENCODER, GENERATION, CARD = "tokenizer.json", "autoencoder", "generation_config.json", "README.md"
REQUIRED = (
    "config.json",
    "model.safetensors",
    TOKENIZER,
    GENERATION,
    STEP_GRAPH,
    f"{STEP_GRAPH}.data",
    ENCODER_GRAPH,
    DECODER_GRAPH,
)


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """image_side_px: of the square images the model was trained on. latent_side: the same in latent pixels.

    latent_channels: numbers of one latent pixel. max_length: columns of a cache slot. opset: of the ONNX graphs.
    """

    image_side_px: int
    latent_side: int
    latent_channels: int
    max_length: int
    opset: int

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width in latent pixels."""
        return (self.latent_side, self.latent_side)

    def num_patches(self, image: Modality) -> int:
        """Positions that one image takes between its begin and end tokens."""
        return math.prod(length // side for length, side in zip(self.image_shape, image.patch_size, strict=True))


class Bundle(NamedTuple):
    """An opened bundle: every file listed in `manifest` had the listed bytes."""

    folder: Path
    config: ModelConfig
    generation: GenerationConfig
    manifest: dict[str, Any]


def write_generation_config(folder: Path, generation: GenerationConfig) -> None:
    """Write generation_config.json."""
    (folder / GENERATION).write_text(json.dumps(asdict(generation), indent=2, sort_keys=True) + "\n")


def open_bundle(folder: Path) -> Bundle:
    """Check and open a bundle; raises ExportRefused where a file is missing, changed, outside the folder or of an old form."""
    manifest = verify(folder)
    for graph in (STEP_GRAPH, ENCODER_GRAPH, DECODER_GRAPH):
        check_graph(folder / graph, manifest["files"])
    try:
        config = ModelConfig.from_dict(_read(folder / "config.json"))
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise ExportRefused(f"{folder / 'config.json'}: {error}; {AGAIN}") from None
    return Bundle(folder, config, _generation(folder), manifest)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`, after the bytes of every listed file were compared with it."""
    manifest = read_manifest(folder, kind=KIND)
    for needed in REQUIRED:
        if needed not in manifest["files"]:
            raise ExportRefused(f"{folder / MANIFEST} does not list {needed}; {AGAIN}")
    return manifest


def bundle_digest(manifest: dict[str, Any]) -> str:
    """One sha256 for the whole bundle, from its files' digests; equal bytes give the equal digest."""
    lines = "".join(f"{name} {entry['sha256']}\n" for name, entry in sorted(manifest["files"].items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _generation(folder: Path) -> GenerationConfig:
    path = folder / GENERATION
    try:
        generation = GenerationConfig(**_read(path))
    except TypeError as error:
        raise ExportRefused(f"{path}: {error}; {AGAIN}") from None
    for name, value in asdict(generation).items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ExportRefused(f"{path}: {name}: {value!r} must be a whole number of at least 1; {AGAIN}")
    return generation


def _read(path: Path) -> Any:
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        raise ExportRefused(f"{path} is not JSON; {AGAIN}") from None
