"""What a graph of a bundle may name: weights in files beside it that the manifest lists, and standard operators.

Looked at before any runtime opens the graph, for a runtime reads whatever file a graph names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import BadInput

if TYPE_CHECKING:
    import onnx

AGAIN = "export the bundle again"
# What an external tensor may say of its file. onnx would set any other key as an attribute of an object of its own.
_KEYS = {"location", "offset", "length", "checksum"}


def check_graph(path: Path, listed: Collection[str]) -> None:
    """Raise BadInput where the ONNX file at `path` is damaged, or needs anything but the files `listed` beside it."""
    import onnx

    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; {AGAIN}") from None
    except Exception:
        # protobuf raises an exception of its own, of a class that depends on its implementation.
        raise BadInput(f"{path} is not an ONNX graph; {AGAIN}") from None
    functions = {function.domain for function in model.functions}
    for node in _nodes(model):
        if node.domain not in ("", "ai.onnx") and node.domain not in functions:
            raise BadInput(f"{path} holds the operator {node.domain}.{node.op_type}, which is not ONNX's own; {AGAIN}")
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(path, tensor, listed)


def _check_external(path: Path, tensor: onnx.TensorProto, listed: Collection[str]) -> None:
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    where = f"{path}: tensor {tensor.name!r}"
    if set(said) - _KEYS or len(said) != len(tensor.external_data):
        raise BadInput(f"{where} describes its file by {[entry.key for entry in tensor.external_data]}; {AGAIN}")
    if location not in listed or "/" in location:
        raise BadInput(f"{where} names the file {location!r}, which is not one of the bundle's; {AGAIN}")
    file = path.with_name(location)
    if file.is_symlink() or file.stat().st_nlink > 1:
        # Where it is changed through its other name, nobody looks at its digest again.
        raise BadInput(f"{file} is a link; put a copy of the file there (DVC: `dvc config cache.type copy`), or {AGAIN}")
    try:
        start, length = int(said.get("offset", 0)), int(said.get("length", 0))
    except ValueError:
        start = length = -1
    if start < 0 or length < 0 or start + length > file.stat().st_size:
        raise BadInput(f"{where} lies outside {file.name}, which has {file.stat().st_size} bytes; {AGAIN}")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        yield from _inner(node)


def _inner(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node of control flow holds."""
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _graphs(graph)


def _all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield from _graphs(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _inner(node)


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in _all_graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a model can hold: weights, sparse ones, and those that nodes hold as attributes."""
    for graph in _all_graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
