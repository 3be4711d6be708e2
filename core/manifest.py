"""A manifest per folder: every file's size and sha256, written last and checked first.

A folder without a valid manifest does not exist for a reader: neither DVC's cache, tar, Parquet, safetensors nor torch
notices a flipped byte by default. A manifest vouches for itself too: its last entry is the sha256 of all the others.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from core.errors import BadInput
from core.files import digest, json_text, sha256, write_json

MANIFEST = "manifest.json"
FORMAT_VERSION = 2

T = TypeVar("T")


def write_manifest(
    folder: Path,
    *,
    kind: str,
    records: Mapping[str, int] | None = None,
    names: Sequence[str] = (),
    written: Mapping[str, Mapping[str, Any]] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """List every file of `folder` with its size and sha256, and write that list last.

    names: list these files and no others. written: the files' entries, where whoever wrote them took their digests on the way.
    records: relative path -> number of records in that file. facts: anything a reader must know (shapes, counts, digests).
    """
    files = {name: dict(entry) for name, entry in written.items()} if written else _entries(folder, names)
    for name, count in (records or {}).items():
        files[name]["records"] = count
    # As it will be read: JSON knows no tuples and no numbers as keys.
    manifest = json.loads(json_text({**facts, "kind": kind, "format_version": FORMAT_VERSION, "files": files}))
    manifest["sha256"] = _own_digest(manifest)
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path, *, kind: str, under: str = "", links: bool = True, remedy: str = "") -> dict[str, Any]:
    """The manifest of `folder`, after checking that every listed file is there with the listed bytes.

    under: check the files whose name begins so, and no others; for a reader of a part of a large folder. links: whether a
    file may be a link out of the folder, as DVC makes them. remedy: what the messages tell the user to do.
    """
    manifest = manifest_of(folder, kind=kind, remedy=remedy)
    remedy = remedy or f"run the stage that writes {folder} again"
    check_files(folder, manifest, [name for name in manifest["files"] if name.startswith(under)], links=links, remedy=remedy)
    return manifest


def check_files(
    folder: Path, manifest: Mapping[str, Any], names: Iterable[str], *, links: bool = True, remedy: str = ""
) -> None:
    """Raise BadInput where one of the files `names` is not there with the bytes that the manifest lists."""
    files = manifest["files"]
    _in_threads(lambda name: _check_file(folder, name, files[name], links, remedy), names)


def manifest_of(folder: Path, *, kind: str, remedy: str = "") -> dict[str, Any]:
    """The manifest of `folder`, without a look at the files that it lists; BadInput where it is missing or damaged."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; {remedy or 'run `dvc repro` to make it'}") from None
    return parse_manifest(content, str(path), kind=kind, remedy=remedy)


def parse_manifest(content: bytes, name: str, *, kind: str, remedy: str = "") -> dict[str, Any]:
    """The manifest whose bytes are `content`; BadInput where they are not those that were written. name: for messages."""
    remedy = remedy or "run the stage that writes it again"
    try:
        manifest = json.loads(content)
        # Equal text as well as an equal digest, for JSON has many spellings of one value.
        whole = content == json_text(manifest).encode() and manifest["sha256"] == _own_digest(manifest)
        found, files = manifest["kind"], manifest["files"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInput(f"{name} is not a manifest as the stages write it; {remedy}") from None
    if not whole:
        raise BadInput(f"{name} does not have the bytes it was written with; {remedy}")
    if found != kind:
        raise BadInput(f"{name.rpartition('/')[0]} holds {found!r}, not {kind!r}; give the folder of the {kind}")
    _check_entries(files, name, remedy)
    return manifest


def _check_entries(files: Any, name: str, remedy: str) -> None:
    """A right digest says that a manifest is whole, not that a stage wrote it: it may come from elsewhere."""
    if not isinstance(files, dict):
        raise BadInput(f"{name} lists no files; {remedy}")
    for listed, entry in files.items():
        if not (isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)):
            raise BadInput(f"{name} does not say the size and sha256 of {listed!r}; {remedy}")
        parts = PurePosixPath(listed)
        if parts.is_absolute() or ".." in parts.parts or "\0" in listed:
            raise BadInput(f"{name} lists {listed!r}, which lies outside its folder; {remedy}")


def _check_file(folder: Path, name: str, entry: Mapping[str, Any], links: bool, remedy: str) -> None:
    path = folder / name
    if not path.exists():
        raise BadInput(f"{path} is listed in the manifest but missing; {remedy}")
    if not links and not path.resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"{path} is a link out of its folder; put the file itself there, or {remedy}")
    # A FIFO would be waited for without end.
    if not stat.S_ISREG(path.stat().st_mode):
        raise BadInput(f"{path} is not a file; {remedy}")
    if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
        raise BadInput(f"{path} does not have the bytes its manifest lists; {remedy}")


def _entries(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of these files, or of all where none is named."""
    if not names:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        names = [str(path.relative_to(folder)) for path in paths if path != folder / MANIFEST]
    there = [name for name in names if (folder / name).is_file()]
    return dict(zip(there, _in_threads(lambda name: _entry(folder / name), there), strict=True))


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def _own_digest(manifest: Mapping[str, Any]) -> str:
    """Of all that the manifest says but its own digest."""
    return digest({name: value for name, value in manifest.items() if name != "sha256"})


def _in_threads(work: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """Digests are made outside Python's lock."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, names))
