"""Files and functions stay short, and every public function says what it gives: python -m tests.contracts.test_statistics."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.contracts.test_layers import ROOT, SOURCES

MEDIAN_FILE, MEDIAN_FUNCTION, MOST_FUNCTIONS = 120, 8, 22
# Where a reader stumbles first, and the least share of their lines that says why something is as it is.
LEAST_COMMENTS = 0.04
HARDEST = (
    "model/attention/math.py",
    "model/attention/packed.py",
    "model/attention/cached.py",
    "model/compiled.py",
    "model/diffusion/solvers.py",
    "model/generation/sampling.py",
    "model/generation/eager.py",
    "model/transfusion.py",
    "components/data/encode/packing.py",
    "components/data/ingest/readers/pairing.py",
    "components/data/loader.py",
    "components/data/row_layout.py",
    "components/runtime/cluster.py",
    "components/training/checkpoint_folders.py",
    "components/training/transformer/trainer.py",
)


class Function(NamedTuple):
    """One function or method. lines: its length. public: whether others may call it, by its name and its class's."""

    where: str
    lines: int
    public: bool
    node: ast.FunctionDef


def functions(path: Path) -> Iterator[Function]:
    """All of a file's, but for those inside others."""

    def inside(body: list[ast.stmt], public: bool) -> Iterator[Function]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from inside(node.body, public and not node.name.startswith("_"))
            elif isinstance(node, ast.FunctionDef):
                where = f"{path.relative_to(ROOT)}:{node.name}"
                yield Function(where, (node.end_lineno or 0) - node.lineno + 1, public and not node.name.startswith("_"), node)

    yield from inside(ast.parse(path.read_text()).body, True)


def every_function() -> list[Function]:
    """Of all packages."""
    return [function for path in SOURCES for function in functions(path)]


def file_lengths() -> list[int]:
    """In lines, the faces of packages left out."""
    return sorted(path.read_text().count("\n") for path in SOURCES if path.name != "__init__.py")


def share_of_comments(path: Path) -> float:
    """Lines with a comment for people among all lines, 0..1."""
    with path.open() as file:
        tokens = [token for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.COMMENT]
    said = {token.start[0] for token in tokens if not token.string.startswith(("# type:", "# noqa", "# ----"))}
    return len(said) / path.read_text().count("\n")


def test_hard_files_say_why() -> None:
    for name in HARDEST:
        share = share_of_comments(ROOT / name)
        assert share >= LEAST_COMMENTS, f"{name}: {share:.1%} of its lines are comments"


def test_files_and_functions_are_short() -> None:
    lengths = sorted(function.lines for function in every_function())
    assert median(file_lengths()) <= MEDIAN_FILE
    assert median(lengths) <= MEDIAN_FUNCTION
    assert lengths[int(0.9 * len(lengths))] <= MOST_FUNCTIONS


def test_every_public_function_is_annotated_and_documented() -> None:
    for function in every_function():
        arguments = function.node.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        bare = [each.arg for each in named if each.annotation is None and each.arg not in ("self", "cls")]
        if function.public:
            assert not bare and function.node.returns is not None, f"{function.where}: no type of {bare or 'its result'}"
            assert ast.get_docstring(function.node), f"{function.where} does not say what it gives"


def test_no_module_opens_with_a_question() -> None:
    for path in SOURCES:
        opening = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
        assert "?" not in opening, f"{path}: {opening}"


def main() -> None:
    """Print the figures."""
    files, lengths = file_lengths(), sorted(function.lines for function in every_function())
    print(f"{len(files)} files, {sum(files)} lines: median {median(files):.0f}, longest {files[-1]}")
    ninetieth = lengths[int(0.9 * len(lengths))]
    print(f"{len(lengths)} functions: median {median(lengths):.0f} lines, 90th percentile {ninetieth}, longest {lengths[-1]}")
    print(*(f"{share_of_comments(ROOT / name):.1%} comments: {name}" for name in HARDEST), sep="\n")


if __name__ == "__main__":
    main()
