"""A graph that names files beside the bundle's, or is no graph, is refused before a runtime opens it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from core.errors import BadInput
from export.graph_files import check_graph

WEIGHTS = b"\0" * 64
Keys = Sequence[tuple[str, str]]
WHOLE: Keys = (("location", "g.onnx.data"), ("offset", "0"), ("length", "16"))


def external(keys: Keys, name: str = "w") -> TensorProto:
    """Four floats in a file beside the graph."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in keys:
        tensor.external_data.add(key=key, value=value)
    return tensor


def saved(folder: Path, graph: onnx.GraphProto, functions: Sequence[onnx.FunctionProto] = ()) -> Path:
    path = folder / "g.onnx"
    model = helper.make_model(graph, functions=functions)
    path.write_bytes(model.SerializeToString())
    path.with_name("g.onnx.data").write_bytes(WEIGHTS)
    return path


def plain(*initializers: TensorProto, nodes: Sequence[onnx.NodeProto] = ()) -> onnx.GraphProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y"))
    add = helper.make_node("Add", ["x", "w"], ["y"])
    return helper.make_graph([add, *nodes], "g", [x], [y], list(initializers))


def refused(path: Path) -> str:
    with pytest.raises(BadInput, match="export the bundle again") as error:
        check_graph(path, {"g.onnx", "g.onnx.data", "folder/listed"})
    assert "\n" not in str(error.value)
    return str(error.value)


def test_weights_in_a_listed_file_beside_it_are_taken(tmp_path: Path) -> None:
    path = saved(tmp_path, plain(external(WHOLE)))
    check_graph(path, {"g.onnx", "g.onnx.data"})
    with pytest.raises(BadInput, match="which is not one of the bundle's"):
        check_graph(path, {"g.onnx"})


@pytest.mark.parametrize("location", ["", "other", "../g.onnx.data", "/etc/hostname", "./g.onnx.data", "folder/listed"])
def test_a_file_that_is_not_listed_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "other").write_bytes(WEIGHTS)
    path = saved(tmp_path, plain(external([("location", location), ("length", "16")])))
    assert f"{location!r}, which is not one of the bundle's" in refused(path)


@pytest.mark.parametrize(
    "keys",
    [
        [("offset", "60"), ("length", "16")],
        [("offset", "-4"), ("length", "4")],
        [("length", str(2**60))],
        [("length", "all")],
        [("offset", "65")],
    ],
)
def test_weights_beyond_the_file_are_refused(tmp_path: Path, keys: Keys) -> None:
    path = saved(tmp_path, plain(external([WHOLE[0], *keys])))
    assert "lies outside g.onnx.data, which has 64 bytes" in refused(path)


@pytest.mark.parametrize("keys", [[*WHOLE, ("__class__", "x")], [*WHOLE, ("location", "other")], [*WHOLE, ("basepath", "/")]])
def test_other_words_about_the_file_are_refused(tmp_path: Path, keys: Keys) -> None:
    assert "describes its file by" in refused(saved(tmp_path, plain(external(keys))))


def test_links_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, plain(external(WHOLE)))
    weights = path.with_name("g.onnx.data")
    os.link(weights, tmp_path / "another name")
    assert "is a link; put a copy" in refused(path)
    weights.unlink()
    weights.symlink_to("another name")
    assert "is a link; put a copy" in refused(path)


def test_every_place_that_holds_tensors_is_looked_at(tmp_path: Path) -> None:
    bad = external([("location", "../outside"), ("length", "16")], "hidden")
    sparse = helper.make_sparse_tensor(bad, helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3]), [4])
    constant = helper.make_node("Constant", [], ["c"], value=bad)
    inner = helper.make_graph([], "inner", [], [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [4])], [bad])
    branch = helper.make_node("If", ["k"], ["b"], then_branch=inner, else_branch=plain())
    function = helper.make_function("own", "F", [], ["c"], [constant], [helper.make_opsetid("", 24)])
    in_sparse = plain()
    in_sparse.sparse_initializer.append(sparse)
    for graph in (plain(nodes=[constant]), plain(nodes=[branch]), in_sparse):
        assert "'../outside'" in refused(saved(tmp_path, graph))
    assert "'../outside'" in refused(saved(tmp_path, plain(), [function]))


def test_an_operator_of_a_runtime_s_own_is_refused(tmp_path: Path) -> None:
    """Such as ONNX Runtime's EPContext, which names a file with compiled code."""
    node = helper.make_node("EPContext", [], ["e"], domain="com.microsoft", ep_cache_context="../code.bin")
    assert "the operator com.microsoft.EPContext" in refused(saved(tmp_path, plain(nodes=[node])))


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, plain(external(WHOLE)))
    whole = path.read_bytes()
    for content in (b"\xff" * 100, whole[: len(whole) - 3], os.urandom(1) + b"\xff" * 40):
        path.write_bytes(content)
        assert "is not an ONNX graph" in refused(path)
    path.unlink()
    assert "is missing" in refused(path)
