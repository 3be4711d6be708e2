"""Mutations drawn from all that Cosmic Ray can make of the source, by a seed.

A place is mutated once: of the changes that are possible there, the seed chooses one. Each place has a rank that hangs on
the seed, the file and the line's own text, and the lowest ranks are drawn; so an edit elsewhere leaves the draw as it is.

The operators are those whose results still run as a rule. Others (a float shifted by bits, a comparison by identity) end
in a TypeError or change nothing, and would make the figures look better or worse than the tests are.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

from tests.mutants.noise import Noise

SCOPE = ("core", "model", "components/data/encode", "export", "components/training")

_NEIGHBOURS = {
    "Add": "Sub",
    "Sub": "Add",
    "Mul": "Div",
    "Div": "Mul",
    "FloorDiv": "Mul",
    "Mod": "FloorDiv",
    "Pow": "Mul",
    "LShift": "RShift",
    "RShift": "LShift",
    "BitOr": "BitAnd",
    "BitAnd": "BitOr",
    "BitXor": "BitOr",
}
_COMPARISONS = ("Eq", "NotEq", "Lt", "LtE", "Gt", "GtE")
OPERATORS = (
    *(f"ReplaceBinaryOperator_{one}_{other}" for one, other in _NEIGHBOURS.items()),
    *(f"ReplaceComparisonOperator_{one}_{other}" for one in _COMPARISONS for other in _COMPARISONS if one != other),
    "ReplaceComparisonOperator_Is_IsNot",
    "ReplaceComparisonOperator_IsNot_Is",
    "ReplaceUnaryOperator_USub_UAdd",
    "ReplaceUnaryOperator_Delete_Invert",
    "ReplaceUnaryOperator_Delete_Not",
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ExceptionReplacer",
    "NumberReplacer",
    "RemoveDecorator",
    "ZeroIterationForLoop",
)


class Drawn(NamedTuple):
    """One change. mutated: the whole module after it. line: from 1. what: the line before and after."""

    module: str
    line: int
    operator: str
    what: str
    mutated: str


class Draw(NamedTuple):
    """left_out: rule -> number of places that were drawn before the last one of `drawn` and left out by it."""

    drawn: list[Drawn]
    left_out: Counter[str]


class _Place(NamedTuple):
    rank: str
    module: str
    start: tuple[int, int]
    choices: tuple[tuple[str, int], ...]


def modules_of(root: Path, scope: Sequence[str]) -> list[str]:
    """Modules under the folders of `scope`, or named by it, relative to root."""
    found: list[Path] = []
    for name in scope:
        path = root / name
        found += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return [str(path.relative_to(root)) for path in found if path.name != "__init__.py"]


def draw(root: Path, scope: Sequence[str], number: int, seed: int) -> Draw:
    """The `number` mutations of lowest rank that no rule leaves out, fewer where there are no more."""
    sources = {module: (root / module).read_text() for module in modules_of(root, scope)}
    noise = {module: Noise(module, source) for module, source in sources.items()}
    places = sorted(place for module, source in sources.items() for place in _places(module, source, seed))
    drawn: list[Drawn] = []
    left_out: Counter[str] = Counter()
    for place in places:
        if len(drawn) == number:
            break
        operator, occurrence = place.choices[int(place.rank, 16) % len(place.choices)]
        if rule := noise[place.module].rule(place.start, operator):
            left_out[rule] += 1
        elif made := _made(place, sources[place.module], operator, occurrence):
            drawn.append(made)
    return Draw(drawn, left_out)


def _places(module: str, source: str, seed: int) -> Iterator[_Place]:
    choices: dict[tuple[tuple[int, int], str], list[tuple[str, int]]] = defaultdict(list)
    nodes = list(ast_nodes(get_ast(source)))
    for name in OPERATORS:
        operator, occurrence = get_operator(f"core/{name}")(), 0
        for node in nodes:
            for start, _ in operator.mutation_positions(node):
                choices[start, name.split("_")[0]].append((name, occurrence))
                occurrence += 1
    lines, seen = source.split("\n"), Counter[tuple[str, int, str]]()
    for (start, family), found in sorted(choices.items()):
        text = lines[start[0] - 1]
        seen[text, start[1], family] += 1
        identity = f"{seed}\0{module}\0{text}\0{start[1]}\0{family}\0{seen[text, start[1], family]}"
        yield _Place(hashlib.sha256(identity.encode()).hexdigest(), module, start, tuple(found))


def _made(place: _Place, source: str, operator: str, occurrence: int) -> Drawn | None:
    """None where the change is no Python, or none at all."""
    mutated = mutate_code(source, get_operator(f"core/{operator}")(), occurrence)
    try:
        if mutated is None or ast.dump(ast.parse(mutated)) == ast.dump(ast.parse(source)):
            return None
    except SyntaxError:
        return None
    if operator == "ExceptionReplacer":
        # Cosmic Ray names an exception that it expects to be there; any that is never raised does.
        mutated = mutated.replace("CosmicRayTestingException", "UnicodeTranslateError")
    before, after = source.split("\n"), mutated.split("\n")
    line = place.start[0]
    new = "" if len(after) != len(before) else f" -> {after[line - 1].strip()}"
    return Drawn(place.module, line, operator, f"{before[line - 1].strip()}{new}", mutated)
