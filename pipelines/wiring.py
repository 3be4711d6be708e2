"""The code that each stage depends on: the import closure of every stage, to which dvc.yaml's code deps are held.

`python -m pipelines.wiring` rewrites the deps of dvc.yaml; `--check` only compares (exit 1 when they differ). DVC then never
skips a stage whose code changed, and never trains again because a reader did.

pipelines/params.py and sections.py import every stage's configuration; what they read is tracked by value (dvc.yaml `params:`),
so the walk does not go on through them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from components.runtime.code_digest import PACKAGES, import_closure
from pipelines import stage

CODE_SUFFIX = ".py"
READ_VALUES = ("pipelines.params", "pipelines.sections")


def code_deps(module: str) -> list[str]:
    """Files of ours that `module` imports, directly or not, itself included; packages' docstring-only faces left out."""
    return import_closure(module, end_at=READ_VALUES)


def stage_definitions(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every stage's body by name; a foreach stage's is its `do`."""
    return {name: body.get("do", body) for name, body in pipeline["stages"].items()}


def is_code(dependency: str) -> bool:
    """Whether a dep of dvc.yaml is one of our source files."""
    return dependency.endswith(CODE_SUFFIX) and dependency.split("/")[0] in PACKAGES


def rewrite(path: Path, *, check: bool) -> list[str]:
    """Make each stage's code deps equal its closure; returns the names of the stages that differed."""
    from ruamel.yaml import YAML

    yaml = YAML()
    # As the file is written by hand: what this changes is then all that git shows.
    yaml.width, yaml.preserve_quotes = 160, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    pipeline = yaml.load(path.read_text())
    different = []
    for name, body in stage_definitions(pipeline).items():
        others = [dep for dep in body["deps"] if not is_code(dep)]
        wanted = others + code_deps(f"pipelines.{name}")
        if list(body["deps"]) != wanted:
            different.append(name)
            # In place, so that the list keeps the style that it was read with.
            body["deps"][:] = wanted
    if different and not check:
        with path.open("w") as file:
            yaml.dump(pipeline, file)
    return different


def main() -> int:
    """Rewrite dvc.yaml's code dependencies where they differ from the imports."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.wiring", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    arguments = parser.parse_args()
    different: list[str] = []
    if code := stage.exit_code("wiring: ", lambda: different.extend(rewrite(Path("dvc.yaml"), check=arguments.check))):
        return code
    print(f"code deps differ: {', '.join(different)}" if different else "code deps of every stage equal its imports")
    return 1 if different and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
