"""The files of a split, in a local folder or fetched from a URL into a cache, checked either way.

TRANSFUSION_LATENTS names a URL (any that fsspec opens, s3://bucket/latents say) that holds a copy of data/latents: training
then reads the copy, and data/latents needs its manifest alone. TRANSFUSION_CACHE is the cache's folder and
TRANSFUSION_CACHE_GIB its size. Files are named by their sha256, so that a cache serves any number of data sets and processes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from components.data.shards import KIND
from core.errors import BadInput
from core.files import atomic_write, sha256
from core.manifest import MANIFEST, parse_manifest, read_manifest

FETCHED_AT_ONCE = 4
BLOCK_BYTES = 8 * 2**20
DEFAULT_GIB = 200


class SplitFiles(NamedTuple):
    """manifest: of the whole folder. files: name below the split's folder -> path of a file whose bytes were checked.

    locks: while these are open no other process removes the files from the cache.
    """

    manifest: dict[str, Any]
    files: dict[str, Path]
    locks: tuple[IO[str], ...]


class Cache(NamedTuple):
    """folder: may be shared by processes of one machine.

    max_bytes: of all files in it; only what is in use at once, by several processes, may be more.
    """

    folder: Path
    max_bytes: int


def open_split(folder: Path | str, split: str) -> SplitFiles:
    """The checked files of one split of a folder of latents, or of a URL of one; BadInput where one is not as listed."""
    remote = os.environ.get("TRANSFUSION_LATENTS", "")
    if isinstance(folder, str) and "://" in folder:
        return fetch_split(folder, split, cache_of_environment())
    if remote:
        return _fetch_same(Path(folder), remote, split)
    folder = Path(folder)
    manifest = read_manifest(folder, kind=KIND, under=f"{split}/")
    return SplitFiles(manifest, {name: folder / split / name for name in _listed(manifest, split)}, ())


def fetch_split(url: str, split: str, cache: Cache) -> SplitFiles:
    """The files of a split below `url`, from the cache where it has them, fetched into it where not."""
    name = f"{url.rstrip('/')}/{MANIFEST}"
    with _opened(name) as file:
        content = file.read()
    manifest = parse_manifest(content, name, kind=KIND)
    entries = _listed(manifest, split)
    if not all(re.fullmatch("[0-9a-f]{64}", str(entry["sha256"])) for entry in entries.values()):
        raise BadInput(f"{name} lists digests that are none; upload the folder again")
    cache.folder.mkdir(parents=True, exist_ok=True)
    total = sum({entry["sha256"]: entry["bytes"] for entry in entries.values()}.values())
    if total > cache.max_bytes:
        raise BadInput(
            f"the {split} split of {url} has {total / 2**30:.2f} GiB, the cache {cache.folder} room for"
            f" {cache.max_bytes / 2**30:.2f}; raise TRANSFUSION_CACHE_GIB"
        )
    paths = {name: cache.folder / entry["sha256"] for name, entry in entries.items()}
    with ExitStack() as on_error, ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
        locks = [on_error.enter_context(_used(path)) for path in paths.values()]
        whole = list(pool.map(_is_whole, paths.values()))
        missing = [name for name, found in zip(entries, whole, strict=True) if not found]
        _make_room(cache, sum(entries[name]["bytes"] for name in missing))
        waiting = [pool.submit(_fetch_once, f"{url.rstrip('/')}/{split}/{name}", paths[name]) for name in missing]
        for future in waiting:
            future.result()
        on_error.pop_all()
    return SplitFiles(manifest, paths, tuple(locks))


def cache_of_environment() -> Cache:
    """TRANSFUSION_CACHE (default: ~/.cache/transfusion) and TRANSFUSION_CACHE_GIB (default: 200)."""
    folder = os.environ.get("TRANSFUSION_CACHE", "") or "~/.cache/transfusion"
    size = os.environ.get("TRANSFUSION_CACHE_GIB", "") or str(DEFAULT_GIB)
    if not re.fullmatch(r"\d+(\.\d+)?", size):
        raise BadInput(f"TRANSFUSION_CACHE_GIB={size!r} must be a number of GiB; unset it for the default, {DEFAULT_GIB}")
    try:
        return Cache(Path(folder).expanduser(), int(float(size) * 2**30))
    except RuntimeError:  # the user, or this process's, has no entry among the machine's users
        raise BadInput(f"TRANSFUSION_CACHE={folder!r}: no such home folder is there; give the whole path") from None


def _fetch_same(folder: Path, url: str, split: str) -> SplitFiles:
    """The files at `url`, whose manifest must be that of `folder` where this machine has it."""
    found = fetch_split(url, split, cache_of_environment())
    local = folder / MANIFEST
    if local.exists() and parse_manifest(local.read_bytes(), str(local), kind=KIND) != found.manifest:
        raise BadInput(f"TRANSFUSION_LATENTS={url} holds other latents than {folder}; upload that folder again, or unset it")
    return found


def _listed(manifest: Mapping[str, Any], split: str) -> dict[str, dict[str, Any]]:
    """Name below the split's folder -> what the manifest says of the file, in order."""
    files = sorted(manifest["files"].items())
    return {name.removeprefix(f"{split}/"): entry for name, entry in files if name.startswith(f"{split}/")}


def _used(path: Path) -> IO[str]:
    """The shared lock that keeps a file in the cache, held while it is open; the file is now the last that was used."""
    lock = path.with_name(f"{path.name}.lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_SH)
    with suppress(FileNotFoundError):
        os.utime(path)
    return lock


def _is_whole(path: Path) -> bool:
    return path.is_file() and sha256(path) == path.name


def _fetch_once(url: str, path: Path) -> None:
    """Make the file at `url` that at `path`: one process fetches, the others wait for it."""
    with path.with_name(f"{path.name}.fetch.lock").open("a") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        if not _is_whole(path):
            _fetch(url, path)


def _fetch(url: str, path: Path) -> None:
    """Copy the file at `url` to `path` whole, if it has the digest that names it; who mapped a damaged copy keeps that."""
    # The lock is held, so that these were left by processes that were killed.
    for left in path.parent.glob(f".{path.name}.*.partial"):
        left.unlink(missing_ok=True)
    digest = hashlib.sha256()
    with atomic_write(path) as partial:
        with _opened(url) as source, partial.open("wb") as target:
            while block := source.read(BLOCK_BYTES):
                digest.update(block)
                target.write(block)
        if digest.hexdigest() != path.name:
            raise BadInput(f"{url} does not have the bytes its manifest lists; upload the folder again")


def _make_room(cache: Cache, num_bytes: int) -> None:
    """Remove files that no process holds, the longest unused first, until num_bytes more fit."""
    with (cache.folder / "eviction.lock").open("a") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        named = [path for path in cache.folder.iterdir() if re.fullmatch("[0-9a-f]{64}", path.name)]
        files = sorted(((path.stat(), path) for path in named), key=lambda found: found[0].st_mtime)
        total = sum(stat.st_size for stat, _ in files)
        for stat, path in files:
            if total + num_bytes <= cache.max_bytes:
                return
            with path.with_name(f"{path.name}.lock").open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                path.unlink()
                total -= stat.st_size


@contextmanager
def _opened(url: str) -> Iterator[IO[bytes]]:
    """The file at a URL; BadInput where it cannot be read."""
    import fsspec

    try:
        with fsspec.open(url, "rb") as file:
            yield cast("IO[bytes]", file)
    except Exception as error:  # every kind of storage has exceptions of its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadInput(f"{url} cannot be read ({reason}); check the URL and the credentials") from None
