"""Write the values that a YAML file holds into params.yaml, whose other values and comments stay.

    python -m pipelines.configure mine.yaml

The file has the sections of params.yaml and in them only what changes. A list takes the place of the one that stood there, and
so does an empty mapping ({}). Values that cannot be used, or do not go together, are refused, and params.yaml stays as it was.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.files import write_text
from core.text import counted
from pipelines import paths, stage
from pipelines.params import ParamsError, keys_of, load, no_yaml


def main() -> int:
    """Change params.yaml and print what changed; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.configure", description=(__doc__ or "").partition("\n")[0], epilog=stage.EXIT_CODES
    )
    parser.add_argument("file", type=Path, help="YAML with the values that change")
    arguments = parser.parse_args()

    def work() -> None:
        changed = configure(paths.PARAMS, arguments.file)
        for dotted, (old, new) in changed.items():
            print(f"{dotted}: {json.dumps(old)} -> {json.dumps(new)}")
        print(f"{counted(len(changed), 'value')} changed in {paths.PARAMS}", flush=True)

    return stage.exit_code("", work)


def configure(params: Path, file: Path) -> dict[str, tuple[Any, Any]]:
    """Write the values of `file` into `params`; returns dotted name -> (old, new) of those that differ.

    ParamsError, and nothing is written, where `file` is no YAML or params.yaml would not be valid with them.
    """
    values = dict(_leaves(_read(file)))
    try:
        # JSON is YAML.
        load(params, [f"{dotted}={json.dumps(value)}" for dotted, value in values.items()])
    except ParamsError as error:
        raise ParamsError(f"{file}: {str(error).removeprefix('--set ').removeprefix(f'{params}: ')}") from None
    yaml = _yaml()
    tree = yaml.load(params.read_text(encoding="utf-8"))
    changed: dict[str, tuple[Any, Any]] = {}
    for dotted, value in values.items():
        *parents, leaf = keys_of(dotted).keys
        node = tree
        for parent in parents:
            node = node[parent]
        if leaf not in node or node[leaf] != value:
            changed[dotted] = (node.get(leaf), value)
            node[leaf] = value
    if changed:
        written = io.StringIO()
        yaml.dump(tree, written)
        # The empty line behind a list that was replaced went with it.
        write_text(params, re.sub(r"(?m)(?<=[^\n]\n)^(?=\w+:)", "\n", written.getvalue()))
    return changed


def _read(file: Path) -> Mapping[str, Any]:
    from ruamel.yaml import YAMLError

    try:
        values = _yaml().load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{file} is missing") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except YAMLError as error:
        raise ParamsError(f"{file} {no_yaml(error, file.read_text(encoding='utf-8'))}") from None
    if not isinstance(values, Mapping):
        raise ParamsError(f"{file} holds no sections of params.yaml")
    return values


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of all that is no mapping, or an empty one."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _yaml() -> Any:
    """Reads and writes as params.yaml is written, with its comments."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 128
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


if __name__ == "__main__":
    sys.exit(main())
