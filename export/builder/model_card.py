"""The model's card: Hugging Face front matter, what it is, figures, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.metric_keys import standard_error_key
from export.bundle import GenerationConfig
from model.config import ModelConfig

_FRONT_MATTER = """---
license: apache-2.0
library_name: transfusion-pipeline
pipeline_tag: any-to-any
tags:
- transfusion
- text-to-image
- image-to-text
- onnx
{model_index}---
"""

_WEIGHTS = {
    "shared": "shared",
    "feed_forward": "shared but for the feed-forward layers",
    "full": "their own but for the attention between them",
}


def model_card(
    name: str,
    config: ModelConfig,
    generation: GenerationConfig,
    *,
    num_parameters: int,
    parity: Mapping[str, float],
    metrics: Mapping[str, float] | None = None,
    intervals: Mapping[str, Mapping[str, Any]] | None = None,
    made_from: Mapping[str, str] | None = None,
    began_with: Mapping[str, str] | None = None,
) -> str:
    """README.md of a model. parity: graph -> largest absolute error. metrics, intervals: the evaluation's, where known.
    made_from: kind of artefact -> digest. began_with: `name` and `sha256` of the weights that its training began with."""
    side = generation.image_side_px
    sections = [
        _FRONT_MATTER.format(model_index=_model_index(name, metrics or {})),
        f"# {name}\n",
        "One transformer that reads and writes text and images (Transfusion, arXiv 2408.11039): text by next-token"
        f" prediction, images by denoising continuous latents ({config.prediction_type}) inside the same sequence.\n",
        "| | |\n|---|---|\n"
        f"| parameters of the transformer | {num_parameters:,} |\n"
        f"| layers, width, heads | {config.num_hidden_layers}, {config.hidden_size}, {config.num_attention_heads} |\n"
        f"| weights of text and images | {_WEIGHTS[config.experts]} |\n"
        f"| vocabulary | {config.vocab_size} byte-level BPE tokens |\n"
        f"| images | {side} x {side} pixels, {generation.num_patches(config.image)} positions each |\n"
        f"| longest document | {config.max_position_embeddings} positions |\n"
        f"{_start(began_with or {})}",
        _INTENDED_USE,
        _data(made_from or {}),
        _USE.format(prompt=example_prompt(metrics or {})),
        _LIMITS,
        "## ONNX against eager torch\n",
        "| graph | largest absolute difference |\n|---|---|\n"
        + "".join(f"| {graph} | {error:.1e} |\n" for graph, error in sorted(parity.items())),
        # Last, since it is long and a registry cuts what it shows.
        _figures(metrics or {}, intervals or {}),
    ]
    return "\n".join(section for section in sections if section)


def _start(began_with: Mapping[str, str]) -> str:
    """A row of the table. What those weights had learnt, and their licence, hold for the model too."""
    return f"| trained from the weights of | {began_with['name']} (`{began_with['sha256'][:12]}`) |\n" if began_with else ""


def example_prompt(metrics: Mapping[str, float]) -> str:
    """A prompt to show how the model is asked. metrics: the evaluation's."""
    # Digits are drawn by a model of the demonstration's scenes alone, and only of them are there such figures.
    knows_digits = any(key.startswith("text_to_image/") for key in metrics)
    return "a red three top left" if knows_digits else "a caption like those it was trained on"


_USE = """## Use

In the bundle's folder, where torch, onnx, onnxruntime, tokenizers, safetensors, pillow and numpy are installed:

```python
import runpy

model = runpy.run_path("code.pyz")["open_model"]()
model.ask("{prompt}").save("picture.png")
```

Guidance and steps are those that the figures were measured with, unless `ask` is told others (`guidance_scale`,
`num_solver_steps`, `seed`). The same on the command line: `python code.pyz --help`. Both run the code that came with the model.
The weights are safetensors, the graphs ONNX; opening the bundle checks every file against `manifest.json`.
"""

_INTENDED_USE = """## Intended use

Pictures from captions, captions of pictures, and text, of the kinds that its training corpora hold. Nothing filters what it
generates. It was not tested on anything else, and is not made for decisions about people.
"""

_LIMITS = """## Limits

The model knows the corpora it was trained on and nothing else; prompts outside them give arbitrary results, and what is
wrong or one-sided in the corpora is so in what it generates. Its figures hold for the evaluation they were measured in: for
these held-out documents, this guidance and this number of steps.
"""


def _model_index(name: str, metrics: Mapping[str, float]) -> str:
    """The front matter's `model-index`, which model hubs show as a table; "" without metrics."""
    if not metrics:
        return ""
    lines = ["model-index:", f"- name: {name}", "  results:", "  - task:", "      type: any-to-any"]
    lines += [
        "    dataset:",
        "      name: held-out documents of the training corpora",
        "      type: custom",
        "    metrics:",
    ]
    for key, value in sorted(metrics.items()):
        lines += [f"    - type: {key}", f"      value: {value:.6g}"]
    return "\n".join(lines) + "\n"


def _data(made_from: Mapping[str, str]) -> str:
    """What it was trained and measured on, as far as the bundle knows: digests, by which the data is known again."""
    rows = "".join(f"| {kind} | `{made_from[kind]}` |\n" for kind in ("documents", "latents", "tokenizer") if kind in made_from)
    if not rows:
        return ""
    said = "Trained on the training split of these documents and measured on their test split, which training never saw. The"
    said += " training's run in MLflow names the corpora; what their licences ask for holds for this model too.\n"
    return f"## Data\n\n{said}\n| artefact | digest |\n|---|---|\n{rows}"


def _figures(metrics: Mapping[str, float], intervals: Mapping[str, Mapping[str, Any]]) -> str:
    if not metrics:
        return ""
    errors = {key: f" +- {metrics[beside]:.1g}" for key in metrics if (beside := standard_error_key(key)) in metrics}
    figures = sorted((key, metrics[key]) for key in metrics.keys() - {standard_error_key(key) for key in errors})
    within = {key: f"{each['low']:.4g} to {each['high']:.4g}" for key, each in intervals.items()}
    rows = "".join(f"| {key} | {value:.4g}{errors.get(key, '')} | {within.get(key, '')} |\n" for key, value in figures)
    return "## Figures\n\n| metric | value, with its standard error | 95% of resamples |\n|---|---|---|\n" + rows


def numbers(tree: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Every number of a nested metrics file under its slash-joined name; booleans and text are left out."""
    flat: dict[str, float] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= numbers(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[prefix + key] = float(value)
    return flat
