"""The step graph built into a TensorRT engine. The one file that builds; where TensorRT is missing it says so.

It rests on these facts: precision is decided by the graph (strongly typed); ONNX Attention becomes a fused layer whose build
fails where no kernel exists (always in fp32, and for heads wider than 256), unless the node carries TRT_decomposable,
which ONNX's checker and ONNX Runtime reject, so it is set in memory only; a build may log an error and return a plan.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import GateRefused
from core.files import atomic_replace, fresh_folder, remove
from export.engine_key import (
    FLAGS,
    MAX_ROWS,
    PLAN,
    EngineKey,
    Profile,
    current_key,
    find_tensorrt,
    input_shapes,
    refusal,
    step_profiles,
    write_sidecar,
)
from model.config import ModelConfig

WORKSPACE_BYTES = 8 * 2**30
BUILDING = ".building-"


class TensorrtReport(NamedTuple):
    """What became of the engine for this machine."""

    built: bool
    """Whether it exists now."""
    why: str
    """Where it is, or why it was not built."""


def build_step_engine(graph: Path, config: ModelConfig, num_patches: int, engines: Path) -> TensorrtReport:
    """Build the engine of `graph` into engines/<key>/, or find it there; "not built: why" where TensorRT cannot run.

    Raises GateRefused where TensorRT is there and the build fails.
    """
    trt, missing = find_tensorrt()
    if trt is None:
        return TensorrtReport(False, f"not built: {missing}")
    profiles = step_profiles(config, num_patches, MAX_ROWS)
    key = current_key(trt, graph, FLAGS, profiles)
    folder = engines / key.digest[:16]
    if not refusal(folder, key):
        return TensorrtReport(True, f"found: {folder}")
    started_s = time.monotonic()
    plan = build_plan(trt, graph, config, profiles)
    store_plan(folder, plan, key, time.monotonic() - started_s)
    return TensorrtReport(True, f"built: {folder}")


def build_plan(trt: Any, graph: Path, config: ModelConfig, profiles: tuple[Profile, ...]) -> bytes:
    """The serialized engine; raises GateRefused with TensorRT's own errors where there were any."""
    errors: list[str] = []
    logger = _error_logger(trt, errors)
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    # The path is only where the external weights are looked for.
    if not parser.parse(decomposable_graph(graph), str(graph)):
        messages = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise GateRefused(f"TensorRT cannot parse {graph}: {'; '.join(messages)}")
    settings = builder.create_builder_config()
    settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    for profile in profiles:
        settings.add_optimization_profile(_profile(builder, config, profile))
    plan = builder.build_serialized_network(network, settings)
    # An inconsistent profile is logged as an error while a plan is returned all the same.
    if plan is None or errors:
        raise GateRefused(f"TensorRT cannot build {graph}: {'; '.join(errors) or 'no plan and no reason given'}")
    return bytes(plan)


def decomposable_graph(graph: Path) -> bytes:
    """The ONNX file's bytes, every Attention node allowed to fall apart into matrix products where no kernel fits."""
    import onnx

    model = onnx.load(str(graph), load_external_data=False)
    for node in model.graph.node:
        if node.op_type == "Attention" and not node.domain:
            node.attribute.append(onnx.helper.make_attribute("TRT_decomposable", 1))
    return model.SerializeToString()


def _strongly_typed(trt: Any) -> int:
    """TensorRT 10 must be told; from 11 on every network is strongly typed and the flag may go."""
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0


def _profile(builder: Any, config: ModelConfig, profile: Profile) -> Any:
    made = builder.create_optimization_profile()
    for name, (least, best, largest) in input_shapes(config, profile).items():
        made.set_shape(name, least, best, largest)
    return made


def _error_logger(trt: Any, errors: list[str]) -> Any:
    """A TensorRT logger that prints warnings and collects errors."""

    class Collector(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                errors.append(message)
            elif severity == trt.ILogger.Severity.WARNING:
                print(f"TensorRT: {message}", flush=True)

    return Collector()


def store_plan(folder: Path, plan: bytes, key: EngineKey, seconds: float) -> None:
    """Put the engine at `folder` whole, or leave what stands there. seconds: that the build took."""
    # One process builds at a time, for it holds the stage's lock: what stands there was left by one that was killed.
    for left in folder.parent.glob(f"{BUILDING}*"):
        remove(left)
    partial = fresh_folder(folder.with_name(f"{BUILDING}{folder.name}"))
    (partial / PLAN).write_bytes(plan)
    write_sidecar(partial, key, build_seconds=round(seconds, 1))
    atomic_replace(partial, folder)
