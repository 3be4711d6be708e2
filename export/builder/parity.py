"""Parity of the exported graphs with eager torch: differences over several sets of shapes.

The shape sets are those where exporters go wrong: one row, one position, ragged rows, and the largest step and window.

Legend: B rows, S positions a step, W numbers in the widest modality's patch, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from export.builder.graphs import step_example
from export.graph_names import STEP_INPUTS, cache_names
from export.run.engine_onnxruntime import open_session
from model.config import ModelConfig
from model.step import StepInputs
from model.transfusion import Transfusion


class Difference(NamedTuple):
    """How far two tensors are from each other."""

    max_abs: float
    """Largest absolute difference."""
    rel_l2: float
    """Norm of the difference over that of the expected."""
    cosine: float
    """Of the angle between them."""


class ShapeSet(NamedTuple):
    """The sizes of one call of the step graph."""

    name: str
    filled: tuple[int, ...]
    """Cache columns that each row holds already; as many entries as rows."""
    num_positions: int
    kv_length: int
    """Cache columns that the call looks at."""


def difference(expected: Tensor, actual: Tensor) -> Difference:
    """How far `actual` is from `expected`; a value that is not finite counts as infinitely far."""
    if expected.shape != actual.shape:
        raise ValueError(f"shapes {tuple(expected.shape)} and {tuple(actual.shape)} differ")
    # In float64, so that the comparison adds no rounding of its own.
    wanted, got = (value.detach().cpu().double().flatten() for value in (expected, actual))
    if not (torch.isfinite(wanted).all() and torch.isfinite(got).all()):
        return Difference(float("inf"), float("inf"), 0.0)
    norms = wanted.norm() * got.norm()
    # An output that is zero has no angle; it is right if the other is zero, too.
    cosine = float(wanted @ got / norms) if norms > 0 else float(bool((wanted == got).all()))
    rel_l2 = float((got - wanted).norm() / wanted.norm().clamp_min(1e-30))
    return Difference(float((got - wanted).abs().max()), rel_l2, cosine)


def argmax_agreement(expected: Tensor, actual: Tensor) -> float:
    """Share of rows whose likeliest token is the same; logits [B, V]."""
    return float((expected.argmax(-1) == actual.argmax(-1)).double().mean())


def step_shape_sets(config: ModelConfig, num_patches: int) -> tuple[ShapeSet, ...]:
    """The shape sets every step graph is measured on. num_patches: positions of one image."""
    longest = config.max_position_embeddings
    middle = max(1, longest // 2 - num_patches)
    # The largest step is one position short of the slot, as the graph's own limit has it.
    return (
        ShapeSet("one row, one position", (middle,), 1, middle + 1),
        ShapeSet("one row, empty cache", (0,), min(7, longest - 1), min(7, longest - 1)),
        ShapeSet("ragged rows, one image block", (middle, 1, middle // 2), num_patches, middle + num_patches),
        ShapeSet("ragged rows, window beyond what is written", (0, 3, 1, 2), 5, longest),
        ShapeSet("largest step and window", (1, 0), longest - 1, longest),
    )


def step_parity(model: Transfusion, path: Path, *, num_patches: int, seed: int) -> list[dict[str, Any]]:
    """Errors of the step graph at `path` against eager torch, one entry a shape set."""
    session = open_session(path)
    generator = torch.Generator().manual_seed(seed)
    return [
        {"shape": shapes.name, "rows": len(shapes.filled), "positions": shapes.num_positions, "keys": shapes.kv_length}
        | compare_step(model, session, random_step(model.config, shapes, generator))
        for shapes in step_shape_sets(model.config, num_patches)
    ]


def random_step(config: ModelConfig, shapes: ShapeSet, generator: torch.Generator) -> dict[str, Tensor]:
    """Random inputs of the step graph, text and patches of all modalities mixed, every query seeing its own column at least."""
    num_rows, num_positions = len(shapes.filled), shapes.num_positions
    inputs = step_example(config, num_rows=num_rows, num_positions=num_positions, kv_length=shapes.kv_length)
    size, cache_position = (num_rows, num_positions), torch.tensor(shapes.filled)
    column = cache_position.unsqueeze(1) + torch.arange(num_positions)
    end = cache_position.unsqueeze(1) + num_positions - 1
    inputs |= {
        "input_ids": torch.randint(config.vocab_size, size, generator=generator),
        "patches": torch.randn(*size, config.patch_dim, generator=generator),
        "token_type_ids": torch.randint(1 + len(config.modalities), size, generator=generator),
        "time": torch.rand(num_rows, generator=generator),
        "position_ids": column,
        "cache_position": cache_position,
        "logits_index": torch.randint(num_positions, (num_rows,), generator=generator),
    }
    # The whole step stands for one latent here: its patches see to the end of the step, text sees itself.
    inputs["kv_end"] = torch.where(inputs["token_type_ids"] > 0, end, column)
    caches = cache_names("cache", config.num_hidden_layers)
    # Noise in every column, so that one which should be hidden and is not shows in the numbers.
    return inputs | {name: torch.randn(inputs[name].shape, generator=generator) for name in caches}


@torch.inference_mode()
def compare_step(model: Transfusion, session: Any, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """One call of the graph in ONNX Runtime beside `Transfusion.step` on equal inputs: outputs and written caches."""
    config = model.config
    outputs = dict(zip([item.name for item in session.get_outputs()], run_session(session, inputs), strict=True))
    # Copies, because eager torch writes into its cache.
    halves = [inputs[name].clone() for name in cache_names("cache", config.num_hidden_layers)]
    cache = list(zip(halves[0::2], halves[1::2], strict=True))
    *tensors, key_position = (inputs[name] for name in STEP_INPUTS)
    expected = model.step(StepInputs(*tensors, kv_length=len(key_position), grids=((),) * len(tensors[0])), cache)
    present = torch.stack([outputs[name] for name in cache_names("present", config.num_hidden_layers)])
    return {
        "logits": difference(expected.logits, outputs["logits"]),
        "prediction": difference(expected.prediction, outputs["prediction"]),
        "cache": difference(torch.stack(halves), present),
        "argmax_agreement": round(argmax_agreement(expected.logits, outputs["logits"]), 4),
    }


@torch.inference_mode()
def image_parity(module: torch.nn.Module, path: Path, examples: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Errors of a graph of one input and one output against its torch module. examples: shape set's name -> input."""
    session = open_session(path)
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    return [
        {"shape": name, "size": list(example.shape)}
        | {given.name: difference(module(example), run_session(session, {taken.name: example})[0])}
        for name, example in examples.items()
    ]


def image_examples(*, channels: int, height: int, width: int, seed: int) -> dict[str, Tensor]:
    """Four shape sets for the autoencoder's graphs: one image, several, wide, and a larger one."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {
        "one image": (1, channels, height, width),
        "several images": (3, channels, height, width),
        "wide image": (2, channels, height, 2 * width),
        "large image": (1, channels, 2 * height, 2 * width),
    }
    return {name: torch.rand(size, generator=generator) * 2 - 1 for name, size in sizes.items()}


def run_session(session: Any, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """All outputs of a session, in its order."""
    arrays = {name: value.detach().contiguous().numpy() for name, value in inputs.items()}
    return [torch.from_numpy(array) for array in session.run(None, arrays)]


def largest_error(entries: Sequence[Mapping[str, Any]]) -> float:
    """The largest max_abs of all entries; infinite where one is no number, for every comparison with that is false."""
    errors = [value.max_abs for entry in entries for value in entry.values() if isinstance(value, Difference)]
    return float("inf") if any(math.isnan(error) for error in errors) else max(errors)


def reported(value: Any) -> Any:
    """What was measured as a report holds it: numbers rounded as in `rounded`. The limits are held against the exact ones."""
    if isinstance(value, Difference):
        return rounded(value)
    if isinstance(value, Mapping):
        return {name: _digits(item) if name == "largest_error" else reported(item) for name, item in value.items()}
    return [reported(item) for item in value] if isinstance(value, list) else value


def rounded(value: Difference) -> dict[str, float | str]:
    """Two significant digits, for the rest differ between machines; JSON has no infinity."""
    return {
        "max_abs": _digits(value.max_abs),
        "rel_l2": _digits(value.rel_l2),
        "cosine": round(value.cosine, 6),
    }


def _digits(number: float) -> float | str:
    return float(f"{number:.1e}") if math.isfinite(number) else str(number)
