"""The manifest of a bundle: checked against its own digest, then every file against it.

The run side's reader of what components/runtime/files.py writes, which export may not import; a test holds the two equal.
"""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path, PurePosixPath
from typing import Any

from export.failure import ExportRefused

MANIFEST = "manifest.json"
AGAIN = "export the bundle again"


def read_manifest(folder: Path, *, kind: str) -> dict[str, Any]:
    """The manifest of `folder`, after every listed file was compared with it; raises ExportRefused."""
    manifest = parse_manifest(folder, kind=kind)
    for name, entry in manifest["files"].items():
        _check_file(folder, name, entry)
    return manifest


def parse_manifest(folder: Path, *, kind: str) -> dict[str, Any]:
    """The manifest of `folder`, itself checked to its last bit; raises ExportRefused."""
    path = folder / MANIFEST
    content = read_bytes(path)
    try:
        manifest = json.loads(content)
        rest = {name: value for name, value in manifest.items() if name != "sha256"}
        # Equal text as well as an equal digest, for JSON has many spellings of one value.
        whole = content == _json(manifest).encode() and manifest["sha256"] == _digest(rest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ExportRefused(f"{path} is not a manifest as the export stage writes it; {AGAIN}") from None
    if not whole:
        raise ExportRefused(f"{path} does not have the bytes it was written with; {AGAIN}")
    if manifest.get("kind") != kind:
        raise ExportRefused(f"{folder} holds {manifest.get('kind')!r}; give the folder that the export stage wrote")
    _check_entries(path, manifest.get("files"))
    return manifest


def read_bytes(path: Path) -> bytes:
    """A file's bytes; raises ExportRefused where it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ExportRefused(f"{path} is missing; {AGAIN}") from None
    except OSError as error:
        raise ExportRefused(f"{path} cannot be read ({error.strerror}); {AGAIN}") from None


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_entries(path: Path, files: Any) -> None:
    """A manifest is data from outside: a right digest says that it is whole, not that a stage wrote it."""
    if not isinstance(files, dict):
        raise ExportRefused(f"{path} lists no files; {AGAIN}")
    for name, entry in files.items():
        right = isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)
        if not right:
            raise ExportRefused(f"{path} does not say the size and sha256 of {name!r}; {AGAIN}")
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\0" in name:
            raise ExportRefused(f"{path} lists {name!r}, which lies outside the bundle; {AGAIN}")


def _check_file(folder: Path, name: str, entry: dict[str, Any]) -> None:
    path = folder / name
    try:
        found = path.stat()
        inside = path.resolve().is_relative_to(folder.resolve())
        if not inside:
            raise ExportRefused(f"{path} is a link out of the bundle; put the file itself there, or {AGAIN}")
        # A FIFO would be waited for without end.
        if not stat.S_ISREG(found.st_mode):
            raise ExportRefused(f"{path} is not a file; {AGAIN}")
        same = found.st_size == entry["bytes"] and sha256(path) == entry["sha256"]
    except FileNotFoundError:
        raise ExportRefused(f"{path} is listed in the manifest but missing; {AGAIN}") from None
    except OSError as error:
        raise ExportRefused(f"{path} cannot be read ({error.strerror}); {AGAIN}") from None
    if not same:
        raise ExportRefused(f"{path} does not have the bytes its manifest lists; {AGAIN}")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
