"""The files of ours that a module imports, directly or not, and one digest of their bytes.

Checkpoints and encoded parts are named by the digest of the code that decides their bytes. It follows from the imports: a list
kept by hand misses a file, or discards work because of one that decides nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from core.files import digest, sha256

if TYPE_CHECKING:
    import grimp

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipelines", "components", "export", "model", "core")


def code_digest(module: str) -> str:
    """Hex digest of the code that decides what `module` computes."""
    return digest({name: sha256(ROOT / name) for name in import_closure(module)})


def import_closure(module: str, *, end_at: Collection[str] = ()) -> list[str]:
    """Files that `module` imports, directly or not, itself included, relative to the repository; packages' faces left out.

    end_at: modules whose own imports do not count.
    """
    seen, open_modules = set[str](), [module]
    while open_modules:
        current = open_modules.pop()
        if current in seen:
            continue
        seen.add(current)
        if current not in end_at:
            open_modules.extend(_imports().find_modules_directly_imported_by(current))
    files = (Path(*name.split(".")).with_suffix(".py") for name in seen)
    return sorted(str(file) for file in files if (ROOT / file).is_file())


@cache
def _imports() -> grimp.ImportGraph:
    import grimp

    # Without its cache on disk: a stage runs in a user's folder.
    return grimp.build_graph(*PACKAGES, cache_dir=None)
