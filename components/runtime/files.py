"""How do bytes cross a stage boundary safely? Atomic writes, and a manifest per folder that is written last and checked first.

A folder without a valid manifest does not exist for a reader: neither DVC's cache, tar, Parquet, safetensors nor torch
notices a flipped byte by default.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.runtime.failure import BadInput

MANIFEST = "manifest.json"


def write_bytes(path: Path, data: bytes) -> None:
    """Write whole or not at all: a temporary file beside `path`, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; a missing or broken file is a BadInput that names it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; run `dvc repro` to make it") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path} is not JSON ({error}); delete it and run `dvc repro`") from None


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex sha256 of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def write_manifest(folder: Path, *, kind: str, records: Mapping[str, int] | None = None, **facts: Any) -> dict[str, Any]:
    """List every file of `folder` with its size and sha256, and write that list last.

    records: relative path -> number of records in that file. facts: anything a reader must know (shapes, counts, digests).
    """
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(".")
    }
    for name, count in (records or {}).items():
        files[name]["records"] = count
    manifest = {"kind": kind, "format_version": 1, "files": files, **facts}
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path, *, kind: str) -> dict[str, Any]:
    """The manifest of `folder`, after checking that every listed file is there with the listed bytes."""
    manifest = read_json(folder / MANIFEST)
    if manifest.get("kind") != kind:
        raise BadInput(f"{folder} holds {manifest.get('kind')!r}, not {kind!r}; give the folder that the {kind} stage wrote")
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise BadInput(f"{path} is listed in the manifest but missing; run the stage that writes {folder} again")
        if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            raise BadInput(f"{path} does not have the bytes its manifest lists; run the stage that writes {folder} again")
    return manifest


def fresh_folder(folder: Path) -> Path:
    """An empty folder at `folder`; whatever stood there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def publish(source: Path, target: Path) -> None:
    """Move the finished folder `source` to `target` in one rename, replacing what stood there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    source.replace(target)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
