"""The making of a bundle from the trained folders: copies, three graphs, their parity, the card.

The caller writes the manifest. Only `problems` judges, after everything was measured, because a report matters most where a
graph is wrong.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import GateRefused
from core.images import Preparation
from export.builder.end_to_end import case_length, end_to_end, max_error
from export.builder.graphs import DecoderGraph, EncoderGraph, decoder_spec, encoder_spec, step_spec
from export.builder.model_card import model_card, numbers
from export.builder.own_code import write_code
from export.builder.parity import image_examples, image_parity, largest_error, step_parity
from export.builder.to_onnx import export_graph
from export.builder.to_tensorrt import TensorrtReport, build_step_engine
from export.bundle import (
    AUTOENCODER,
    CARD,
    CODE,
    DECODER_GRAPH,
    ENCODER_GRAPH,
    STEP_GRAPH,
    TOKENIZER,
    Bundle,
    GenerationConfig,
    write_generation_config,
)
from export.config import ExportConfig
from export.run.engine_onnxruntime import OnnxRuntimeEngine
from export.weights import load_weights
from model.config import ModelConfig
from model.diffusion.solvers import chosen_solver
from model.generation.requests import SamplingOptions
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion

# Inputs of the parity check are random and the same in every run.
PARITY_SEED = 2408
CARD_NAME = "Transfusion"
# Of an answer in words, where nobody says how long it may be. The evaluation takes its own length from the held-out captions.
MAX_NEW_TOKENS = 64


class Sources(NamedTuple):
    """Folders of the trained transformer, of the autoencoder, and of the tokenizer."""

    model: Path
    autoencoder: Path
    tokenizer: Path


class Evaluated(NamedTuple):
    """The evaluation's figures, and how it generated the pictures that they were measured on."""

    metrics: Mapping[str, Any]
    sampling: SamplingOptions
    intervals: Mapping[str, Mapping[str, Any]] = {}
    """Metric -> its `low` and `high`, where it has an interval."""
    made_from: Mapping[str, str] = {}
    """Kind of artefact -> digest: the documents and latents among them that the model was trained and measured on."""
    began_with: Mapping[str, str] = {}
    """`name` and `sha256` of the weights that its training began with; nothing where those were random."""


def build_bundle(
    sources: Sources, folder: Path, config: ExportConfig, *, preparation: Preparation, evaluated: Evaluated
) -> dict[str, Any]:
    """Write everything but the manifest into the empty `folder`; returns what `measure` does."""
    model, autoencoder = (
        load_weights(Transfusion.from_pretrained, sources.model),
        load_weights(Autoencoder.from_pretrained, sources.autoencoder),
    )
    generation = generation_config(model.config, autoencoder, preparation, evaluated.sampling, opset=config.opset)
    _export(model, autoencoder, folder, config.opset)
    _copy(sources, folder)
    write_code(folder / CODE)
    write_generation_config(folder, generation)
    parity = measure(model, autoencoder, folder, generation, config)
    errors = {graph: entry["largest_error"] for graph, entry in parity["graphs"].items()}
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    figures = {"num_parameters": num_parameters, "parity": errors, "metrics": numbers(evaluated.metrics)}
    known = {"intervals": evaluated.intervals, "made_from": evaluated.made_from, "began_with": evaluated.began_with}
    (folder / CARD).write_text(model_card(CARD_NAME, model.config, generation, **figures, **known))
    return parity


def generation_config(
    config: ModelConfig, autoencoder: Autoencoder, preparation: Preparation, sampling: SamplingOptions, *, opset: int
) -> GenerationConfig:
    """What a bundle says of generation; raises GateRefused where the parts do not fit each other."""
    if not config.modalities or len(config.image.patch_size) != 2:
        names = ", ".join(modality.name for modality in config.modalities) or "none"
        raise GateRefused(f"a bundle wants images as the model's first modality, patches of two axes; it has: {names}")
    scale, image = autoencoder.pixels_per_latent, config.image
    if autoencoder.latent_channels != image.channels:
        raise GateRefused(
            f"the autoencoder has {autoencoder.latent_channels} latent channels and the model was trained on"
            f" {image.channels}; train the model on latents of this autoencoder"
        )
    height_px, width_px = (scale * side for side in image.patch_size)
    image_side_px = preparation.side_px
    if image_side_px % height_px or image_side_px % width_px:
        raise GateRefused(f"images of {image_side_px} px do not cut into patches of {height_px} x {width_px} px")
    generation = GenerationConfig(
        image_side_px=image_side_px,
        image_background=preparation.background,
        image_animated=preparation.animated,
        latent_side=image_side_px // scale,
        latent_channels=image.channels,
        max_length=config.max_position_embeddings,
        opset=opset,
        guidance_scale=sampling.guidance_scale,
        num_solver_steps=sampling.num_steps,
        solver=chosen_solver(config.process, sampling.solver),
        max_new_tokens=MAX_NEW_TOKENS,
    )
    needed = case_length(config, generation.num_patches(image))
    if needed > config.max_position_embeddings:
        raise GateRefused(
            f"an image with a short prompt takes {needed} positions, the model holds {config.max_position_embeddings}"
        )
    return generation


def _copy(sources: Sources, folder: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(sources.model / name, folder / name)
    shutil.copyfile(sources.tokenizer / "tokenizer.json", folder / TOKENIZER)
    (folder / AUTOENCODER).mkdir()
    for path in sorted(sources.autoencoder.iterdir()):
        # A folder's own manifest is checked by its reader; inside the bundle there is one for all.
        if path.is_file() and path.suffix in (".json", ".safetensors") and path.name != "manifest.json":
            shutil.copyfile(path, folder / AUTOENCODER / path.name)


def _export(model: Transfusion, autoencoder: Autoencoder, folder: Path, opset: int) -> None:
    graphs = (
        # Its weights stay outside the protobuf, whose limit is 2 GB.
        (step_spec(model, opset=opset), STEP_GRAPH, True),
        (encoder_spec(autoencoder), ENCODER_GRAPH, False),
        (decoder_spec(autoencoder), DECODER_GRAPH, False),
    )
    for spec, file, external_data in graphs:
        exported = export_graph(spec, folder / file, opset=opset, external_data=external_data)
        print(f"{file}: {exported.num_nodes} nodes at opset {opset} in {exported.seconds:.1f} s", flush=True)


def measure(
    model: Transfusion, autoencoder: Autoencoder, folder: Path, generation: GenerationConfig, config: ExportConfig
) -> dict[str, Any]:
    """The exact errors of the graphs in `folder` and their limits; `reported` makes the report of it, equal on all machines."""
    side, latent_side = generation.image_side_px, generation.latent_side
    num_patches = generation.num_patches(model.config.image)
    images = image_examples(channels=3, height=side, width=side, seed=PARITY_SEED)
    channels = generation.latent_channels
    latents = image_examples(channels=channels, height=latent_side, width=latent_side, seed=PARITY_SEED)
    engine = OnnxRuntimeEngine(folder / STEP_GRAPH, model.config)
    end_to_end_errors = end_to_end(model, engine, num_patches=num_patches, seed=PARITY_SEED)
    shapes = {
        STEP_GRAPH: step_parity(model, folder / STEP_GRAPH, num_patches=num_patches, seed=PARITY_SEED),
        ENCODER_GRAPH: image_parity(EncoderGraph(autoencoder), folder / ENCODER_GRAPH, images),
        DECODER_GRAPH: image_parity(DecoderGraph(autoencoder), folder / DECODER_GRAPH, latents),
    }
    graphs: dict[str, Any] = {
        file: {"largest_error": largest_error(entries), "limit": config.max_autoencoder_error, "shapes": entries}
        for file, entries in shapes.items()
    }
    graphs[STEP_GRAPH]["limit"] = config.max_transformer_error
    graphs["end_to_end"] = {
        "largest_error": max_error(end_to_end_errors),
        "limit": config.max_transformer_error,
        "parts": end_to_end_errors,
    }
    return {"opset": generation.opset, "reference": "eager torch, float32", "graphs": graphs}


def problems(parity: dict[str, Any]) -> list[str]:
    """One sentence for each graph whose largest error is above its limit, or is no number."""
    return [
        f"{graph} differs from eager torch by {entry['largest_error']:.4g}, above {entry['limit']:.4g}"
        for graph, entry in parity["graphs"].items()
        if not entry["largest_error"] <= entry["limit"]
    ]


def build_tensorrt(bundle: Bundle, config: ExportConfig, engines: Path) -> TensorrtReport:
    """The engine for this machine; "auto" reports what stood against it, "required" raises GateRefused."""
    if config.tensorrt == "off":
        return TensorrtReport(False, "not built: export.tensorrt is off")
    num_patches = bundle.generation.num_patches(bundle.config.image)
    try:
        result = build_step_engine(bundle.folder / STEP_GRAPH, bundle.config, num_patches, engines)
    except GateRefused as error:
        result = TensorrtReport(False, f"not built: {error}")
    if config.tensorrt == "required" and not result.built:
        raise GateRefused(f"export.tensorrt is required, and the engine was {result.why}")
    return result
