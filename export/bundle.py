"""A bundle: one folder that holds a whole model, checked byte for byte when it is opened.

config.json, model.safetensors    the transformer, as Hugging Face lays models out
autoencoder/                      the image autoencoder, a diffusers folder
tokenizer.json                    byte-level BPE
generation_config.json            sizes that generation needs, how pictures are prepared, and how it was measured
step.onnx (+ .data)               one generation step on a slot cache
vae_encoder.onnx, vae_decoder.onnx
code.pyz                          the code that answers prompts with it (export/builder/own_code.py)
README.md                         the model card
manifest.json                     every file's size and sha256, and its own
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from core.errors import BadInput
from core.images import OWN_RULES, ImageRules
from core.manifest import MANIFEST, read_manifest
from export.config import check_options
from export.graph_files import AGAIN, check_graph
from model.config import Modality, ModelConfig

if TYPE_CHECKING:
    from model.diffusion.solvers import Solver

KIND = "bundle"
STEP_GRAPH, ENCODER_GRAPH, DECODER_GRAPH = "step.onnx", "vae_encoder.onnx", "vae_decoder.onnx"
TOKENIZER, AUTOENCODER, GENERATION, CARD = "tokenizer.json", "autoencoder", "generation_config.json", "README.md"
CODE = "code.pyz"
REQUIRED = (
    "config.json",
    "model.safetensors",
    TOKENIZER,
    GENERATION,
    CODE,
    STEP_GRAPH,
    f"{STEP_GRAPH}.data",
    ENCODER_GRAPH,
    DECODER_GRAPH,
)


# Fields of GenerationConfig that are words; the others but guidance_scale are whole numbers.
CHOICES = {
    "image_background": ("black", "white"),
    "image_animated": ("first_frame", "refuse"),
    "solver": ("ddpm", "ddim", "dpmpp", "unipc", "euler", "heun"),
}


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Sizes that generation needs, how the pictures of the corpus were prepared, and what a model is asked with by default.

    The options of generation are those that the evaluation's figures hold for; their names are Hugging Face's where it has one.
    """

    image_side_px: int
    """Of the square images the model was trained on."""
    image_background: Literal["black", "white"]
    """What shows through transparency."""
    image_animated: Literal["first_frame", "refuse"]
    """Of several frames the first is taken, or the file is refused."""
    latent_side: int
    """Side of an image in latent pixels."""
    latent_channels: int
    """Numbers of one latent pixel."""
    max_length: int
    """Columns of a cache slot."""
    opset: int
    """Of the ONNX graphs."""
    guidance_scale: float
    """Of the evaluation's pictures; 1 is none."""
    num_solver_steps: int
    """Of the evaluation's pictures."""
    solver: Solver
    """Of the evaluation's pictures; one for the model's prediction type (model/diffusion/solvers.py)."""
    max_new_tokens: int
    """Of an answer in words."""

    @property
    def image_rules(self) -> ImageRules:
        """For the picture of a request: prepared as the corpus's were, of any shape that can be decoded."""
        own = {"background": self.image_background, "animated": self.image_animated}
        return replace(OWN_RULES, max_aspect_ratio=math.inf, **own)

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
    """Check and open a bundle; raises BadInput where a file is missing, changed, outside the folder or of an old form."""
    manifest = verify(folder)
    for graph in (STEP_GRAPH, ENCODER_GRAPH, DECODER_GRAPH):
        check_graph(folder / graph, manifest["files"])
    described = _read(folder / "config.json")
    try:
        config = ModelConfig.from_dict(described)
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise BadInput(f"{folder / 'config.json'}: {error}; {AGAIN}") from None
    return Bundle(folder, config, _generation(folder), manifest)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`, after the bytes of every listed file were compared with it."""
    manifest = read_manifest(folder, kind=KIND, links=False, remedy=AGAIN)
    for needed in REQUIRED:
        if needed not in manifest["files"]:
            raise BadInput(f"{folder / MANIFEST} does not list {needed}; {AGAIN}")
    return manifest


def bundle_digest(manifest: dict[str, Any]) -> str:
    """One sha256 for the whole bundle, from its files' digests; equal bytes give the equal digest."""
    lines = "".join(f"{name} {entry['sha256']}\n" for name, entry in sorted(manifest["files"].items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _generation(folder: Path) -> GenerationConfig:
    path = folder / GENERATION
    values, names = _read(path), {field.name for field in fields(GenerationConfig)}
    if not isinstance(values, dict) or set(values) != names:
        # Bundles of before do not say how pictures are prepared, or how they were measured, and it is not guessed.
        wrong = ", ".join(sorted(names ^ set(values))) if isinstance(values, dict) else "an object"
        raise BadInput(f"{path} lacks, or has too many: {wrong}; {AGAIN}")
    for name, value in values.items():
        if name in CHOICES:
            if value not in CHOICES[name]:
                raise BadInput(f"{path}: {name}: {value!r} must be one of {', '.join(CHOICES[name])}; {AGAIN}")
        elif name != "guidance_scale" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise BadInput(f"{path}: {name}: {value!r} must be a whole number of at least 1; {AGAIN}")
    try:
        check_options(values)
    except ValueError as error:
        raise BadInput(f"{path}: {error}; {AGAIN}") from None
    return GenerationConfig(**values)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise BadInput(f"{path} is not JSON; {AGAIN}") from None
