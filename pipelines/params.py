"""params.yaml, read and validated once, before any work.

Errors name the dotted path, the value and the fix; a stage turns them into exit code 2.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from components.runtime.diagnosis import first_line, sentence_of
from core.text import half_surrogate
from pipelines.combinations import contradictions
from pipelines.sections import Params

# Keys that had another name, and the one that they have now.
RENAMED = {
    "ingest.max_quarantined_share": "ingest.max_rejected_share",
    "evaluate.judge": "evaluate.digit_classifier",
    "register.floors": "register.bounds",
    "train.model.codec": "train.model.patch_layers",
    "train.model.objective": "train.model.prediction_type",
}


MAX_DEPTH, TOO_DEEP = 50, "is nested too deep; write fewer brackets"


class ParamsError(ValueError):
    """params.yaml, or an override of it, cannot be used."""


def load(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Read and validate `path`; overrides are `section.key=value` strings whose values are YAML."""
    tree = _read_yaml(path)
    for override in overrides:
        _apply(tree, override)
    problems = [*_unknown_keys(tree, Params, ()), *_unusable(tree, ())]
    if problems:
        raise ParamsError(f"{path}: {problems[0]}")
    _fill_corpora(tree)
    params = _validate(tree, path)
    for sentence in contradictions(params):
        raise ParamsError(f"{path}: {sentence}")
    return params


def _fill_corpora(tree: dict[str, Any]) -> None:
    """Give every entry of ingest.corpora what it leaves out, from ingest.corpus_defaults; other shapes are refused later."""
    ingest = tree.get("ingest")
    if isinstance(ingest, dict) and isinstance(ingest.get("corpora"), list):
        defaults = ingest.get("corpus_defaults")
        known = defaults if isinstance(defaults, dict) else {}
        ingest["corpora"] = [known | entry if isinstance(entry, dict) else entry for entry in ingest["corpora"]]


def _read_yaml(path: Path) -> dict[str, Any]:
    # ruamel reads YAML 1.2, as DVC does: 1e-4 is a number there, and a string in PyYAML.
    from ruamel.yaml import YAML, YAMLError

    try:
        tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing; run from the repository root or give --params PATH") from None
    except OSError as error:
        raise ParamsError(sentence_of(error) or f"{path} cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except YAMLError as error:
        raise ParamsError(f"{path} {no_yaml(error, path.read_text(encoding='utf-8'))}") from None
    except Exception as error:
        raise ParamsError(f"{path} {_no_value(error)}") from None
    if fault := _no_json(tree):
        raise ParamsError(f"{path} {fault}")
    if not isinstance(tree, dict):
        raise ParamsError(f"{path} must hold one section a stage, and holds {type(tree).__name__}")
    return tree


class Keys(NamedTuple):
    """keys: from the section on. is_free: whether the last one is of a mapping that takes any."""

    keys: tuple[str, ...]
    is_free: bool


def keys_of(dotted: str) -> Keys:
    """A dotted name taken apart; the names in a mapping that takes any (metrics) may hold dots themselves."""
    keys, kind, rest = [], Params, dotted
    while dataclasses.is_dataclass(kind) and "." in rest:
        key, _, rest = rest.partition(".")
        keys.append(key)
        kind = get_type_hints(kind).get(key)
    if get_origin(kind) is dict:
        return Keys((*keys, rest), True)
    return Keys((*keys, *rest.split(".")), False)


def _apply(tree: dict[str, Any], override: str) -> None:
    from ruamel.yaml import YAML, YAMLError
    from ruamel.yaml.constructor import DuplicateKeyError

    dotted, separator, text = override.partition("=")
    if not separator:
        raise ParamsError(f"--set {override}: write it as section.key=value")
    (*parents, leaf), is_free = keys_of(dotted)
    node: Any = tree
    for key in parents:
        node = node.get(key) if isinstance(node, dict) else None
    if not isinstance(node, dict) or not (leaf in node or is_free):
        old = next((name for name in RENAMED if f"{dotted}.".startswith(f"{name}.")), None)
        renamed = f"; it is now called {RENAMED[old]}{dotted.removeprefix(old)}" if old else ""
        raise ParamsError(f"--set {override}: params.yaml has no key {dotted}{renamed}")
    try:
        node[leaf] = YAML(typ="safe").load(text)
        fault = _no_json(node[leaf])
    except YAMLError as error:
        twice = _said_twice(text) if isinstance(error, DuplicateKeyError) else ""
        fault = f"the value {twice}" if twice else f"{first_line(text)!r} is not a YAML value"
        raise ParamsError(f"--set {first_line(override)}: {fault}") from None
    except Exception as error:
        fault = _no_value(error)
    if fault:
        raise ParamsError(f"--set {first_line(override)}: the value {fault}")


def no_yaml(error: Exception, text: str) -> str:
    """What is wrong with a file that no YAML can be read from, as a clause. error: ruamel's."""
    from ruamel.yaml.constructor import DuplicateKeyError

    twice = _said_twice(text) if isinstance(error, DuplicateKeyError) else ""
    return twice or f"is not YAML: {' '.join(str(error).split())}"


def _said_twice(text: str) -> str:
    """Which key stands twice in one mapping, and in which lines, as a clause."""
    from ruamel.yaml import YAML

    nodes: list[tuple[tuple[str, ...], Any]] = [((), YAML(typ="safe", pure=True).compose(text))]
    for path, node in nodes:
        if not isinstance(node.value, list):
            continue
        lines: dict[str, int] = {}
        for number, item in enumerate(node.value):
            # Of a mapping a pair of nodes, of a list a node.
            named, value = item if isinstance(item, tuple) else (None, item)
            key = str(named.value) if named else str(number)
            dotted, line = (*path, key), (named or value).start_mark.line + 1
            if key in lines:
                return f"has {'.'.join(dotted)} twice, in line {lines[key]} and in line {line}; keep one of them"
            lines[key] = line
            nodes.append((dotted, value))
    return ""


def _no_value(error: Exception) -> str:
    """ruamel raises whatever Python does where a value of a type cannot be made of the text: a 45th day, `!!int x`."""
    if isinstance(error, RecursionError):
        return TOO_DEEP
    if "set_int_max_str_digits" in str(error):
        return "holds a number of too many digits; write a smaller one"
    return f"holds what is no value of its type ({type(error).__name__}: {first_line(error)}); write it in quotes, or another"


def _no_json(value: Any) -> str:
    """Why a value is none that JSON knows, as a clause; "" where it is one."""
    try:
        json.dumps(value, default=str)
    except RecursionError:
        return TOO_DEEP
    except (TypeError, ValueError) as error:
        # Lists as keys, a list inside itself, a number of thousands of digits.
        return f"holds what cannot be used ({first_line(error)}); write another"
    return TOO_DEEP if _depth(value) > MAX_DEPTH else ""


def _depth(value: Any) -> int:
    """How many lists and mappings stand inside each other; json has found before that there is an end."""
    level, depth = [value], 0
    while level := [item for outer in level if isinstance(outer, (dict, list)) for item in _items(outer)]:
        depth += 1
    return depth


def _items(outer: dict[Any, Any] | list[Any]) -> list[Any]:
    return list(outer.values()) if isinstance(outer, dict) else outer


def _unknown_keys(value: Any, kind: Any, path: tuple[str, ...]) -> Iterator[str]:
    """One sentence for each key that the dataclass `kind` has no field for."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            for inner in get_args(kind)[:1]:
                yield from _unknown_keys(item, inner, (*path, str(index)))
    if not dataclasses.is_dataclass(kind) or not isinstance(value, dict):
        return
    hints = get_type_hints(kind)
    for key, item in value.items():
        if key in hints:
            yield from _unknown_keys(item, hints[key], (*path, str(key)))
            continue
        dotted, near = ".".join((*path, str(key))), difflib.get_close_matches(str(key), hints, n=1)
        meant = f"; did you mean {'.'.join((*path, near[0]))}?" if near else f"; known here: {', '.join(hints)}"
        meant = f"; it is now called {RENAMED[dotted]}" if dotted in RENAMED else meant
        yield f"{dotted} = {item!r} is not a known key{meant}"


def _unusable(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    """One sentence for each number that is infinite or not a number, and for each text that no file can hold."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in children:
        yield from _unusable(item, (*path, str(key)))
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{'.'.join(path)} = {value!r} must be a finite number"
    if isinstance(value, str) and half_surrogate(value):
        yield f"{'.'.join(path)} = {value!r} holds half a surrogate pair, which no text file can; write the character itself"


def _validate(tree: dict[str, Any], path: Path) -> Params:
    from pydantic import TypeAdapter, ValidationError

    try:
        # JSON mode takes lists for tuples while strict still refuses "12" for 12.
        return TypeAdapter(Params).validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        dotted = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise ParamsError(
                f"{path}: {dotted} is missing; give it a value (every tracked value stands in params.yaml)"
            ) from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "value_error":
            raise ParamsError(f"{path}: {dotted}.{message}") from None
        if first["type"] == "rule":
            raise ParamsError(f"{path}: {dotted} = {first.get('ctx', {})['value']!r} {message}") from None
        raise ParamsError(f"{path}: {dotted} = {first['input']!r}: {message[0].lower()}{message[1:]}") from None
