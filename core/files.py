"""Atomic writes of files, atomic replacement of folders, and digests of both."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.leftovers import partial_of, remove_leftovers_of

# What systems say where a file cannot have another name there.
NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
# Of what befell a disk while it was written to the system says no file's name.
NAMELESS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """What a write in the block raises names `path`, where the system, Arrow or safetensors name no file."""
    try:
        yield
    except OSError as error:
        if error.errno in NAMELESS and error.filename is None:
            error.filename = str(path)
        raise
    except Exception as error:  # safetensors' own; the field is the one that OSError has
        error.__dict__.setdefault("filename", str(path))
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Where to write what becomes the file `path` at the end of the block: fsync, rename, fsync of the folder.

    Whatever happens, `path` is the old file or the new one, whole. What a process that was killed while it wrote the file left
    of it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers_of(path)
    partial = partial_of(path)
    with named(path):
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
    """An atomic write of bytes."""
    with atomic_write(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """An atomic write of UTF-8 text."""
    write_bytes(path, text.encode())


def json_text(value: Any) -> str:
    """JSON in one spelling: equal values give equal text."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `json_text` of a value."""
    write_text(path, json_text(value))


def read_json(path: Path) -> Any:
    """Read JSON; a missing or broken file is a BadInput that names it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; run `dvc repro` to make it") from None
    except (ValueError, RecursionError) as error:
        # A ValueError that is no JSONDecodeError: the bytes are not even UTF-8.
        raise BadInput(f"{path} is not JSON ({error}); delete it and run `dvc repro`") from None


def read_fields(path: Path, *names: str) -> dict[str, Any]:
    """Read a JSON object; BadInput that names it also where one of its fields is missing."""
    value = read_json(path)
    if not isinstance(value, dict) or not set(names) <= set(value):
        raise BadInput(f"{path} does not hold {' and '.join(names)}; delete it and run `dvc repro`")
    return value


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file that grows by a line each, none where it is missing; what a kill cut short is left out."""
    values = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            values.append(json.loads(line))
        except ValueError:
            continue
    return [value for value in values if isinstance(value, dict)]


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex sha256 of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def fresh_folder(folder: Path) -> Path:
    """An empty folder at `folder`; whatever stood there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def atomic_replace(source: Path, target: Path) -> None:
    """Move the finished folder `source` to `target`, in the place of what stands there, across file systems too.

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
