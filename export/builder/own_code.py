"""A bundle's own code: one archive that Python runs, its packages under a name that no other version has.

code.pyz holds the modules that answer prompts, and what they import of `export`, `model` and `core`. A bundle so loads where
this repository is not installed, or stands at another version. Names as common as `model` and `core` would be taken by
whatever a user's folder holds, and by the first of two versions that one process loads; so the packages are put below one that
is named for their digest, and every import of them says so.
"""

from __future__ import annotations

import ast
import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

from export import page
from export.run import served

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("export", "model", "core")
# Imported here, so that DVC exports again where they, or anything that they import, change.
ENTRIES = (page.__name__, served.__name__)
# The earliest time that a zip file can hold: equal code gives equal bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)
MAIN = '''"""This bundle's prompt: python code.pyz "a red three top left" -o three.png; --page shows a page instead."""

import sys
from functools import partial
from pathlib import Path

from {package}.export import ask, page

BUNDLE = Path(__file__).resolve().parents[1]
open_model = partial(ask.open_model, BUNDLE)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--page"]:
        sys.exit(page.main(sys.argv[2:], model=BUNDLE, command="python code.pyz --page"))
    sys.exit(ask.main(model=BUNDLE, command="python code.pyz"))
'''


def write_code(path: Path, root: Path = ROOT) -> str:
    """Write the archive `path`; returns the name of the package in it. root: where the packages' source lies."""
    sources = {name: (root / name).read_text() for name in module_files()}
    package = f"transfusion_{_digest(sources)[:16]}"
    # Faces hold a docstring alone, and are left empty here: what the archive holds is what DVC knows of.
    folders = {folder for name in sources for folder in Path(name).parents if folder.name}
    files = {f"{folder}/__init__.py": "" for folder in folders} | {
        name: renamed(source, package, name) for name, source in sources.items()
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, text in sorted({f"{package}/{name}": text for name, text in files.items()}.items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), text)
        archive.writestr(zipfile.ZipInfo(f"{package}/__init__.py", EPOCH), "")
        archive.writestr(zipfile.ZipInfo("__main__.py", EPOCH), MAIN.format(package=package))
    return package


def module_files() -> list[str]:
    """The files that the entries import, directly or not, themselves included, relative to the root."""
    import grimp

    # Without its cache on disk: a stage runs in a user's folder.
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    names = set(ENTRIES).union(*(graph.find_upstream_modules(entry) for entry in ENTRIES))
    files = (Path(*name.split(".")).with_suffix(".py") for name in names)
    return sorted(str(file) for file in files if (ROOT / file).is_file())


def renamed(source: str, package: str, name: str) -> str:
    """The source with every import of our packages below `package`; every line stays in its place. name: for the refusal."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and _ours(alias.name for alias in node.names):
            # It would bind the bare name.
            raise ValueError(f"{name}:{node.lineno}: write the import as `from ... import ...`")
        if isinstance(node, ast.ImportFrom) and node.module and not node.level and _ours([node.module]):
            at, line = node.col_offset, lines[node.lineno - 1]
            lines[node.lineno - 1] = line[:at] + line[at:].replace(f"from {node.module} ", f"from {package}.{node.module} ", 1)
    return "".join(lines)


def _ours(modules: Iterable[str]) -> bool:
    return any(module.partition(".")[0] in PACKAGES for module in modules)


def _digest(sources: dict[str, str]) -> str:
    """Hex sha256 of names and texts."""
    told = hashlib.sha256(MAIN.encode())
    for name, source in sorted(sources.items()):
        told.update(f"{name}\0{len(source)}\0{source}".encode())
    return told.hexdigest()
