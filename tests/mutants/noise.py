"""Mutations that no test could or should notice, each under the rule that leaves it out.

A rule looks at where a mutation stands, never at whether it survived. What a rule leaves out is counted and printed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

RULES = {
    "annotation": "types: they are not run",
    "text for people": "printed, logged and raised text, descriptions and representations",
    "record": "frozen, keyword-only and slots of a dataclass; abstract methods, protocols' bodies and static typing",
    "speed": "threads, chunks, caches, buffers, compilation and inference mode: the same results, sooner or later",
    "time": "how long something waits or how often it looks",
    "own mistakes": "assertions and zip(strict=...): they speak only when our own code is wrong",
    "other machine": "GPU and TensorRT code that a machine without them cannot run",
    "signature": "the bare * and / of a function's parameters",
}

# Modules that run on a GPU or with TensorRT alone.
OTHER_MACHINE = frozenset({"model/attention/flex.py", "export/run/engine_tensorrt.py"})

_SPEED_NAMES = re.compile(
    r"thread|chunk|cache_size|maxsize|prefetch|buffer|non_blocking|pin_memory|fullgraph|dynamic|bucket|fused|workspace|"
    r"compression|intra_op|inter_op|num_actors|num_cpus|set_to_none",
    re.IGNORECASE,
)
# Sizes of parts that are worked on one after the other, and limits of memory: documented to change no result.
_SPEED_CONSTANTS = frozenset(
    {"MAX_LOGITS", "MAX_GRAPHS", "IMAGES_A_PASS", "a_pass", "PIXELS_A_WORKER", "PIXELS_A_THREAD", "MAX_BYTES_OF_IMAGES"}
)
_TIME_NAMES = re.compile(r"timeout|interval_s|_every_s|wait|patience|sleep|_S$")
_SPEED_DECORATORS = {"cache", "lru_cache", "cached_property", "inference_mode", "no_grad", "jit", "compile", "disable"}
_RECORD_DECORATORS = {"abstractmethod", "override", "runtime_checkable", "final", "overload"}
_TEXT_CALLS = {"print", "say", "_say", "log", "warning", "info", "debug", "warn", "exception", "add_argument"}


@dataclass(frozen=True)
class Span:
    """From (line, column) up to (line, column), as ast counts: lines from 1, columns from 0, both in characters."""

    start: tuple[int, int]
    end: tuple[int, int]

    def holds(self, place: tuple[int, int]) -> bool:
        return self.start <= place < self.end


class Noise:
    """The rules' spans in one module."""

    def __init__(self, module: str, source: str) -> None:
        self._all = "other machine" if module in OTHER_MACHINE else None
        self._lines = source.split("\n")
        self._spans = [(rule, _span(node)) for rule, node in _marked(ast.parse(source))]

    def rule(self, place: tuple[int, int], operator: str) -> str | None:
        """The rule that leaves out a mutation by `operator` at `place`; None: it counts."""
        if self._all:
            return self._all
        if operator == "RemoveDecorator":
            return self._of_decorator(place)
        line = self._lines[place[0] - 1]
        if operator.startswith("ReplaceBinaryOperator") and re.fullmatch(r"[*/]\s*,?", line[place[1] :].strip()[:2].strip()):
            return "signature"
        if re.search(r"\bcuda\b|tensorrt", line, re.IGNORECASE):
            return "other machine"
        return next((rule for rule, span in self._spans if span.holds(place)), None)

    def _of_decorator(self, place: tuple[int, int]) -> str | None:
        name = re.split(r"[(\s]", self._lines[place[0] - 1].strip().removeprefix("@"))[0].rpartition(".")[2]
        return "speed" if name in _SPEED_DECORATORS else "record" if name in _RECORD_DECORATORS else None


def _marked(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        yield from _annotations(node)
        yield from _text(node)
        yield from _records(node)
        yield from _named(node)
        if isinstance(node, ast.Assert):
            yield "own mistakes", node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield "record", node


def _annotations(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    found = [getattr(node, "annotation", None), getattr(node, "returns", None)]
    yield from (("annotation", one) for one in found if isinstance(one, ast.AST))
    if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("type["):
        yield "annotation", node.value
    if isinstance(node, ast.Call) and _called(node) == "cast":
        yield "annotation", node.args[0]


def _text(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.Call) and _called(node) in _TEXT_CALLS:
        yield "text for people", node
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        yield from (("text for people", argument) for argument in node.exc.args)
    if isinstance(node, ast.FunctionDef) and node.name == "__repr__":
        yield "text for people", node


def _records(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.ClassDef):
        yield from (("record", decorator) for decorator in node.decorator_list if "dataclass" in ast.unparse(decorator))
        if any(ast.unparse(base).split("[")[0] == "Protocol" for base in node.bases):
            yield "record", node


def _named(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Values of keyword arguments, of assignments to names, and of decorators, that speed or time alone hang on."""
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg == "strict" and _called(node) == "zip":
                yield "own mistakes", keyword.value
            elif keyword.arg and (rule := _rule_of(keyword.arg)):
                yield rule, keyword.value
        if _called(node) in {"set_num_threads", "lru_cache"}:
            yield "speed", node
        if _called(node) in {"sleep", "join", "wait"} and not isinstance(node.func, ast.Name) and _is_time(node):
            yield "time", node
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            names = [target] if isinstance(target, ast.Name) else getattr(target, "elts", [])
            rules = [rule for name in names if isinstance(name, ast.Name) and (rule := _rule_of(name.id))]
            yield from ((rule, node.value) for rule in rules[:1])


def _is_time(node: ast.Call) -> bool:
    return all(isinstance(argument, ast.Constant) and isinstance(argument.value, int | float) for argument in node.args)


def _rule_of(name: str) -> str | None:
    return "speed" if name in _SPEED_CONSTANTS or _SPEED_NAMES.search(name) else "time" if _TIME_NAMES.search(name) else None


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


def _span(node: ast.AST) -> Span:
    where: ast.expr = node  # type: ignore[assignment]
    assert where.end_lineno is not None
    assert where.end_col_offset is not None
    return Span((where.lineno, where.col_offset), (where.end_lineno, where.end_col_offset))
