"""The graph of dvc.yaml: its stages in order, what each waits for, and shapes to draw them by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

ROW, GUTTER, BAR_WIDTH = 28, 34, 90
# Of an arc that passes other stages by, for each of them; and the widest.
BULGE, MOST_BULGE = 9, 30


class Stage(NamedTuple):
    """name: as DVC prints it. after: the stages that it waits for, without those that they wait for themselves."""

    name: str
    says: str
    after: tuple[str, ...]


class Node(NamedTuple):
    """A stage in its row. y: of its middle. seconds: its wall time; None where it is not known. bar: the length of its bar."""

    stage: Stage
    y: float
    seconds: float | None
    bar: float


def stages_of(pipeline: Mapping[str, Any]) -> list[Stage]:
    """The stages of a parsed dvc.yaml, each behind all that it waits for."""
    bodies = dict(_bodies(pipeline))
    outs = {name: [_path(out) for out in body.get("outs", ())] for name, body in bodies.items()}
    needs = {
        name: {other for other in bodies if other != name and _feeds(outs[other], body["deps"])}
        for name, body in bodies.items()
    }
    every: dict[str, set[str]] = {}
    for name in _in_order(needs):
        every[name] = needs[name].union(*(every[other] for other in needs[name]))
    found = []
    for name, before in every.items():
        direct = {other for other in needs[name] if not any(other in every[between] for between in before)}
        found.append(Stage(name, bodies[name].get("desc", ""), tuple(each for each in every if each in direct)))
    return found


def nodes(stages: Sequence[Stage], seconds: Mapping[str, float]) -> list[Node]:
    """Rows from above, in the stages' order. seconds: by the stages' names."""
    longest = max((seconds[stage.name] for stage in stages if stage.name in seconds), default=0.0)
    found = []
    for number, stage in enumerate(stages):
        known = seconds.get(stage.name)
        bar = max(2.0, BAR_WIDTH * known / longest) if known is not None and longest else 0.0
        found.append(Node(stage, ROW * (number + 0.5), known, round(bar, 1)))
    return found


def edges(rows: Sequence[Node]) -> list[str]:
    """SVG paths between stages: down to the next row, or in an arc at the left past the rows between."""
    at = {row.stage.name: number for number, row in enumerate(rows)}
    paths = []
    for number, row in enumerate(rows):
        for other in row.stage.after:
            span, start = number - at[other], rows[at[other]].y
            side = GUTTER - min(MOST_BULGE, BULGE * span)
            line = f"L {GUTTER} {row.y}" if span == 1 else f"C {side} {start}, {side} {row.y}, {GUTTER} {row.y}"
            paths.append(f"M {GUTTER} {start} {line}")
    return paths


def _bodies(pipeline: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each stage's body; of a foreach stage one for each of its items, filled in."""
    for name, body in pipeline["stages"].items():
        if "foreach" not in body:
            yield name, body
            continue
        for key, item in body["foreach"].items():
            values = {"${key}": key} | {f"${{item.{field}}}": value for field, value in item.items()}
            yield f"{name}@{key}", _filled(body["do"], values)


def _filled(tree: Any, values: Mapping[str, str]) -> Any:
    if isinstance(tree, Mapping):
        return {_filled(key, values): _filled(value, values) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_filled(each, values) for each in tree]
    for place, value in values.items():
        tree = tree.replace(place, value) if isinstance(tree, str) else tree
    return tree


def _path(out: Any) -> str:
    return out if isinstance(out, str) else next(iter(out))


def _feeds(outs: Sequence[str], deps: Sequence[str]) -> bool:
    """Whether one is a dependency, lies in one, or holds one."""
    return any(f"{dep}/".startswith(f"{out}/") or f"{out}/".startswith(f"{dep}/") for out in outs for dep in deps)


def _in_order(needs: Mapping[str, set[str]]) -> Iterator[str]:
    """Each behind what it needs; of several that could come next, the one that stands first."""
    left = dict(needs)
    while left:
        name = next(name for name, others in left.items() if not others & left.keys())
        del left[name]
        yield name
