"""Removal of what the stages wrote: the outputs that dvc.yaml lists, reports left out, and unfinished work.

Whatever else stands beside them in data/ and artifacts/ is the user's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from core.files import remove
from pipelines import paths, stage


def main() -> int:
    """Remove the outputs of the graph's stages and `.work`."""
    return stage.exit_code("clean: ", clean)


def clean() -> None:
    """Remove every output and .work in the current folder, then the folders that are left empty; not while a stage runs."""
    from ruamel.yaml import YAML

    # All locks before the first file goes, so that a stage that runs loses nothing, not even another stage's outputs.
    with ExitStack() as held:
        for lock in sorted(paths.WORK.glob("*.lock")):
            held.enter_context(stage.exclusive(lock.stem))
        _clean([paths.WORK, *outputs(YAML(typ="safe").load(Path("dvc.yaml").read_text()))])


def _clean(removed: list[Path]) -> None:
    for path in removed:
        remove(path)
    # Deepest first: a folder is empty only once those in it are gone.
    for parent in sorted({parent for path in removed for parent in path.parents if parent != Path()}, reverse=True):
        with suppress(OSError):  # not empty, or not there
            parent.rmdir()


def outputs(pipeline: dict[str, Any]) -> Iterator[Path]:
    """What each stage of a dvc.yaml writes, but for the reports; a foreach stage's outputs once for each of its keys."""
    for body in pipeline["stages"].values():
        for out in body.get("do", body).get("outs", []):
            name = next(iter(out)) if isinstance(out, dict) else out
            for key in body.get("foreach", [""]):
                path = Path(name.replace("${key}", key))
                if paths.REPORTS not in path.parents:
                    yield path


if __name__ == "__main__":
    sys.exit(main())
