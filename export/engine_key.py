"""The key of a serialized TensorRT engine: it is loaded only where it was built, for this graph, TensorRT, GPU and flags.

A serialized engine is native code, and TensorRT does not notice a changed byte. So an engine is a local cache and never
an artefact that is passed on: it lies in a folder named by its key, and what the key or the digest does not match is
refused *before* it is deserialised, with a sentence that says why.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from core.files import sha256
from export.graph_names import STEP_DIMS, cache_names
from model.config import ModelConfig

PLAN, SIDECAR = "step.plan", "engine.json"
FORMAT_VERSION = 1
# Rows of the largest batch, and what the build does beside parsing the graph; both are part of the key.
MAX_ROWS = 64
FLAGS = ("strongly_typed", "decomposable_attention")


class Range(NamedTuple):
    """Smallest, best and largest size of a dimension that a profile takes."""

    min: int
    opt: int
    max: int


class Profile(NamedTuple):
    """One optimisation profile: the sizes TensorRT tunes kernels for."""

    name: str
    batch: Range
    step: Range
    keys: Range


@dataclass(frozen=True, kw_only=True)
class EngineKey:
    """Everything that a serialized engine depends on."""

    format_version: int
    graph_sha256: str
    """Of the ONNX file, then of its weights' file."""
    tensorrt: str
    gpu: str
    compute_capability: str
    driver: str
    cuda: str
    flags: tuple[str, ...]
    profiles: tuple[Profile, ...]

    @property
    def digest(self) -> str:
        """Hex sha256 of all of it, the name of the engine's folder."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def find_tensorrt() -> tuple[ModuleType | None, str]:
    """(the tensorrt module, "") or (None, why it cannot be used); a real probe, not a look at what is installed."""
    try:
        trt = importlib.import_module("tensorrt")
    except ImportError as error:
        return None, f"the tensorrt package does not import here ({error})"
    if not torch.cuda.is_available():
        return None, "there is no CUDA device that torch can use"
    return trt, ""


def step_profiles(config: ModelConfig, num_patches: int, max_rows: int) -> tuple[Profile, ...]:
    """Text decoding (one position), denoising (one image), prefill (anything that fits a slot).

    num_patches: of one image. It is denoised in blocks of so many positions, and committed in one with its end token.
    """
    longest = config.max_position_embeddings
    rows, keys = Range(1, max_rows, max_rows), Range(1, longest, longest)
    prefill = Range(1, min(longest // 4 + 1, longest - 1), longest - 1)
    return (
        Profile("decode", rows, Range(1, 1, 1), keys),
        Profile("denoise", rows, Range(num_patches, num_patches, min(num_patches + 1, longest - 1)), keys),
        Profile("prefill", rows, prefill, keys),
    )


def profile_for(profiles: tuple[Profile, ...], num_rows: int, num_positions: int) -> int:
    """Index of the narrowest profile that takes a step of this size; raises ValueError where none does."""
    for index, profile in enumerate(profiles):
        if profile.step.min <= num_positions <= profile.step.max and num_rows <= profile.batch.max:
            return index
    most = profiles[-1]
    raise ValueError(
        f"a step of {num_rows} rows and {num_positions} positions fits no profile of at most {most.batch.max} rows and"
        f" {most.step.max} positions; take a smaller batch_size (guidance takes two rows a request) or shorter prompts"
    )


def input_shapes(config: ModelConfig, profile: Profile) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Input name -> its least, best and largest shape in `profile`."""
    cache_shape = (-1, config.num_attention_heads, config.max_position_embeddings, config.head_dim)
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {}
    for name, dims in STEP_DIMS.items():
        ranges = [getattr(profile, dims[axis]) for axis in sorted(dims)]
        tail = (config.patch_dim,) if name == "patches" else ()
        shapes[name] = tuple((*(getattr(size, bound) for size in ranges), *tail) for bound in Range._fields)
    for name in cache_names("cache", config.num_hidden_layers):
        shapes[name] = tuple((getattr(profile.batch, bound), *cache_shape[1:]) for bound in Range._fields)
    return shapes


def current_key(trt: Any, graph: Path, flags: tuple[str, ...], profiles: tuple[Profile, ...]) -> EngineKey:
    """The key of an engine built from `graph` on this machine now."""
    import pynvml

    pynvml.nvmlInit()
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()
    major, minor = torch.cuda.get_device_capability()
    return EngineKey(
        format_version=FORMAT_VERSION,
        graph_sha256=graph_digest(graph),
        tensorrt=str(trt.__version__),
        gpu=torch.cuda.get_device_name(),
        compute_capability=f"{major}.{minor}",
        driver=driver,
        cuda=str(torch.version.cuda),
        flags=flags,
        profiles=profiles,
    )


def graph_digest(graph: Path) -> str:
    """Digest of an ONNX file and of its external weights."""
    weights = graph.with_name(graph.name + ".data")
    return sha256(graph) + (sha256(weights) if weights.is_file() else "")


def write_sidecar(folder: Path, key: EngineKey, **facts: Any) -> None:
    """engine.json beside the plan: the key in full, the plan's digest, and what a reader wants to know."""
    sidecar = {"key": asdict(key), "plan_sha256": sha256(folder / PLAN), **facts}
    (folder / SIDECAR).write_text(json.dumps(sidecar, indent=2, sort_keys=True) + "\n")


def refusal(folder: Path, key: EngineKey) -> str:
    """Why the engine in `folder` must not be loaded under `key`; "" where it may."""
    try:
        sidecar = json.loads((folder / SIDECAR).read_text())
        stored, digest = dict(sidecar["key"]), str(sidecar["plan_sha256"])
    except FileNotFoundError:
        return f"no engine was built for this graph and machine (no {folder / SIDECAR}); run the export stage"
    except (ValueError, KeyError, TypeError):
        return f"{folder / SIDECAR} is damaged; delete {folder} and run the export stage again"
    wanted = json.loads(json.dumps(asdict(key)))
    for name in wanted:
        if stored.get(name) != wanted[name]:
            built, here = stored.get(name), wanted[name]
            return f"the engine in {folder} was built for {name} {built!r}, and here it is {here!r}; build it again"
    if not (folder / PLAN).is_file() or sha256(folder / PLAN) != digest:
        return f"{folder / PLAN} does not have the bytes its sidecar lists; delete {folder} and build it again"
    return ""
