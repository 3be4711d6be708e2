"""Bytes that cross a stage boundary: atomic writes, and a manifest per folder that is written last and checked first.

A folder without a valid manifest does not exist for a reader: neither DVC's cache, tar, Parquet, safetensors nor torch
notices a flipped byte by default. A manifest vouches for itself too: its last entry is the sha256 of all the others.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.runtime.failure import BadInput
from components.runtime.leftovers import partial_of, remove_leftovers_of

MANIFEST = "manifest.json"
FORMAT_VERSION = 2
# What systems say where a file cannot have another name there.
NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write a file that is to stand at `path` whole or not at all: it is flushed to disk and renamed at the end.

    What a process that was killed while it wrote the file left of it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers_of(path)
    partial = partial_of(path)
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    _sync(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write whole or not at all: a temporary file beside `path`, fsync, rename, fsync of the folder."""
    with written_whole(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values give equal bytes."""
    write_text(path, _json(value))


def read_json(path: Path) -> Any:
    """Read JSON; a missing or broken file is a BadInput that names it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; run `dvc repro` to make it") from None
    except (ValueError, RecursionError) as error:
        # A ValueError that is no JSONDecodeError: the bytes are not even UTF-8.
        raise BadInput(f"{path} is not JSON ({error}); delete it and run `dvc repro`") from None


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex sha256 of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def write_manifest(
    folder: Path, *, kind: str, records: Mapping[str, int] | None = None, names: Sequence[str] = (), **facts: Any
) -> dict[str, Any]:
    """List every file of `folder` with its size and sha256, and write that list last.

    names: list these files and no others. records: relative path -> number of records in that file. facts: anything a
    reader must know (shapes, counts, digests).
    """
    if not names:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        names = [str(path.relative_to(folder)) for path in paths if path != folder / MANIFEST]
    files = {name: entry for name, entry in zip(names, _entries(folder, names), strict=True) if entry}
    for name, count in (records or {}).items():
        files[name]["records"] = count
    # As it will be read: JSON knows no tuples and no numbers as keys.
    manifest = json.loads(_json({**facts, "kind": kind, "format_version": FORMAT_VERSION, "files": files}))
    manifest["sha256"] = _own_digest(manifest)
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path, *, kind: str, under: str = "") -> dict[str, Any]:
    """The manifest of `folder`, after checking that every listed file is there with the listed bytes.

    under: check the files whose name begins so, and no others; for a reader of a part of a large folder.
    """
    manifest = manifest_of(folder, kind=kind)
    wanted = [name for name in manifest["files"] if name.startswith(under)]
    for name, there in zip(wanted, _entries(folder, wanted), strict=True):
        entry = manifest["files"][name]
        if there is None:
            raise BadInput(f"{folder / name} is listed in the manifest but missing; run the stage that writes {folder} again")
        if entry["bytes"] != there["bytes"] or entry["sha256"] != there["sha256"]:
            raise BadInput(
                f"{folder / name} does not have the bytes its manifest lists; run the stage that writes {folder} again"
            )
    return manifest


def manifest_of(folder: Path, *, kind: str) -> dict[str, Any]:
    """The manifest of `folder`, without a look at the files that it lists; BadInput where it is missing or damaged."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; run `dvc repro` to make it") from None
    return parse_manifest(content, str(path), kind=kind)


def parse_manifest(content: bytes, name: str, *, kind: str) -> dict[str, Any]:
    """The manifest whose bytes are `content`; BadInput where they are not those that were written. name: for messages."""
    try:
        manifest = json.loads(content)
        whole = manifest["sha256"] == _own_digest(manifest) and content == _json(manifest).encode()
        found, files = manifest["kind"], manifest["files"]
        listed = all(isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str) for entry in files.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInput(f"{name} is not a manifest as the stages write it; run the stage that writes it again") from None
    if not (whole and listed):
        raise BadInput(f"{name} does not have the bytes it was written with; run the stage that writes it again")
    if found != kind:
        folder = name.rpartition("/")[0]
        raise BadInput(f"{folder} holds {found!r}, not {kind!r}; give the folder that the {kind} stage wrote")
    return manifest


def fresh_folder(folder: Path) -> Path:
    """An empty folder at `folder`; whatever stood there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def publish(source: Path, target: Path) -> None:
    """Move the finished folder `source` to `target`, across file systems too.

    What stood at `target` stands there until the new folder is whole and on disk, and again where the move fails. A link to
    a folder stays a link; the folder that it leads to is replaced.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    incoming, replaced = (target.with_name(f".{target.name}.{part}") for part in ("incoming", "replaced"))
    # What a killed process left: the older folder counts for as long as no newer one stands at the target.
    if not target.exists() and replaced.exists():
        replaced.replace(target)
    remove(replaced)
    remove(incoming)
    _sync_tree(source)
    try:
        _swap(source, target, replaced)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(source, incoming)
        _swap(incoming, target, replaced)
        shutil.rmtree(source)
    remove(replaced)


def _copy(source: Path, incoming: Path) -> None:
    """Copy a folder; it is on disk then, or nothing of it."""
    try:
        shutil.copytree(source, incoming)
        _sync_tree(incoming)
    except BaseException:
        remove(incoming)
        raise


def _swap(new: Path, target: Path, replaced: Path) -> None:
    """Put `new` at `target`, and what stood there at `replaced`."""
    if target.exists():
        target.replace(replaced)
    try:
        new.replace(target)
    except BaseException:
        if replaced.exists():
            replaced.replace(target)
        raise
    _sync(target.parent)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name of the file `source`, or its copy: exFAT and some network mounts know no hard links, others count them."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source, target)


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _own_digest(manifest: Mapping[str, Any]) -> str:
    """Of all that the manifest says but its own digest."""
    return digest({name: value for name, value in manifest.items() if name != "sha256"})


def _entries(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Any] | None]:
    """What a manifest lists of each file, None for one that is missing; digests are made outside Python's lock."""

    def entry(name: str) -> dict[str, Any] | None:
        path = folder / name
        return {"bytes": path.stat().st_size, "sha256": sha256(path)} if path.is_file() else None

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(entry, names)


def _sync_tree(folder: Path) -> None:
    """Every file and folder below `folder`, and itself."""
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
