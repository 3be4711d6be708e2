"""A graph module made into an ONNX file: one call of torch's exporter, checked, with named dimensions.

It rests on these facts: example sizes must be at least 2 and distinct, or a dimension is taken for a constant; a
dimension named with Dim keeps its name over all inputs; the checker reads weights by path, so also above 2 GB.
"""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch

from core.errors import GateRefused
from export.builder.graphs import GraphSpec
from export.builder.kv_cache_operator import onnx_translations


class ExportedGraph(NamedTuple):
    """A graph that was written."""

    path: Path
    """Its weights are beside it in <name>.data where they are external."""
    opset: int
    num_nodes: int
    seconds: float


def export_graph(spec: GraphSpec, path: Path, *, opset: int, external_data: bool) -> ExportedGraph:
    """Write `spec` as ONNX to `path`; raises GateRefused where the exporter or the checker does not take it."""
    import onnx

    started_s = time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        program = torch.onnx.export(
            spec.module.eval(),
            spec.arguments(),
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            dynamic_shapes=_dynamic_shapes(spec),
            dynamo=True,
            opset_version=opset,
            custom_translation_table=onnx_translations(opset),
            verbose=False,
        )
    if program is None:
        raise GateRefused(f"torch.onnx.export returned no program for {path.name}; export it from an unmodified torch 2.13")
    for node in program.model.graph:
        # The exporter notes each node's stack trace: paths of this machine, and most of the file.
        node.metadata_props.clear()
    program.save(str(path), external_data=external_data)
    onnx.checker.check_model(str(path), full_check=True)
    _check_interface(spec, path)
    num_nodes = sum(1 for _ in program.model.graph)
    return ExportedGraph(path, opset, num_nodes, time.monotonic() - started_s)


def _dynamic_shapes(spec: GraphSpec) -> tuple[Any, ...]:
    dims = {name: torch.export.Dim(name, min=limits.min, max=limits.max) for name, limits in spec.limits.items()}
    shapes = [{axis: dims[dim] for axis, dim in spec.dims[name].items()} for name in spec.inputs]
    if not spec.num_trailing:
        return tuple(shapes)
    # The module takes its last inputs as *args, and torch.export wants those as one nested tuple.
    return (*shapes[: -spec.num_trailing], tuple(shapes[-spec.num_trailing :]))


def _check_interface(spec: GraphSpec, path: Path) -> None:
    """The exporter may drop an input or freeze a dimension; both would surface only at run time."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    names = ([item.name for item in graph.input], [item.name for item in graph.output])
    if names != (list(spec.inputs), list(spec.outputs)):
        raise GateRefused(f"{path.name} has inputs and outputs {names}, wanted {(list(spec.inputs), list(spec.outputs))}")
    for item in graph.input:
        shape = item.type.tensor_type.shape.dim
        for axis, dim in spec.dims[item.name].items():
            if shape[axis].dim_param != dim:
                raise GateRefused(
                    f"{path.name}: axis {axis} of {item.name} was exported as {shape[axis]}, wanted the dynamic {dim}"
                )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's messages about torchvision and its own deprecations; errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
