"""The files of a corpus, located: a file, a folder, a glob or a brace pattern, local or by any URL.

A path that exists is what it says, whatever characters are in it. Of any other, the parts that exist are taken as they
stand, and the rest may hold braces ({00000..00009}, {a,b}), as webdataset has them, and *, ? and [...].
"""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import fsspec
from braceexpand import braceexpand

from components.data.config import CorpusConfig
from components.data.ingest.readers.endings import ALL_PICTURES
from components.data.ingest.readers.passed_over import SYSTEM, PassedOver, another_ending, is_system_path
from components.data.ingest.readers.unpacking import COMPRESSED_ENDINGS
from components.data.ingest.readers.walking import Walk, is_local, outermost, without_second_links
from core.errors import BadInput

GLOB_CHARACTERS = "*?["
MAX_EXPANDED = 1_000_000
RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?\}")
NAMED_PICTURES = "pictures beside the files, which are read where a record names them"
BESIDE_FOLDERS = "files beside the folders that the path names"
# fsspec's file systems raise their libraries' own errors (botocore's are no OSError), so these places catch all of them.
ANY_STORAGE_ERROR = Exception


class NotListed(BadInput):
    """The storage itself failed: it cannot be reached, or does not let us look."""


class Pattern(NamedTuple):
    """One path, or glob, that a corpus's path stands for."""

    path: str
    is_glob: bool
    base: str
    """Of a glob, the folder above its first special part."""


class Found(NamedTuple):
    """What a corpus's path stands for."""

    system: Any
    patterns: list[Pattern]
    base: str
    """The folder above its first special part."""


def locate(corpus: CorpusConfig, suffixes: tuple[str, ...], passed_over: PassedOver | None = None) -> tuple[Any, list[str]]:
    """The fsspec file system and the sorted files that corpus.path names; those of folders and globs by their endings.

    Endings are compared without case, and may have that of a compressed file behind them. passed_over: takes what is left
    out. BadInput where nothing is there, or where one of several braces' paths has nothing.
    """
    left_out = PassedOver() if passed_over is None else passed_over
    system, patterns, _ = _patterns(corpus.name, corpus.path)
    files: list[str] = []
    try:
        walk = Walk(system, left_out)
        for pattern in patterns:
            found = list(_files_of(system, pattern, suffixes, walk, left_out))
            if not found and len(patterns) > 1:
                raise _nothing(corpus, f"{' or '.join(suffixes)} files", left_out, pattern.path)
            files += found
        files = without_second_links(files, left_out) if is_local(system) else sorted(set(files))
    except BadInput:
        raise
    except ANY_STORAGE_ERROR as error:
        raise not_listed(corpus.name, corpus.path, error) from None
    if not files:
        raise _nothing(corpus, f"{' or '.join(suffixes)} files", left_out)
    return system, files


def locate_folders(corpus: CorpusConfig, passed_over: PassedOver | None = None) -> tuple[Any, dict[str, str]]:
    """The fsspec file system and the folders that corpus.path names, sorted, with what tells each from the others.

    That is "" for a single folder, else its path below the part of corpus.path that all share. A folder inside another of
    them is left to that one. BadInput where none is there.
    """
    left_out = PassedOver() if passed_over is None else passed_over
    system, patterns, base = _patterns(corpus.name, corpus.path)
    try:
        folders = {path: path.removeprefix(base).strip("/") for path in _folders_of(system, patterns, left_out)}
    except ANY_STORAGE_ERROR as error:
        raise not_listed(corpus.name, corpus.path, error) from None
    missing = [pattern.path for pattern in patterns if not pattern.is_glob and pattern.path.rstrip("/") not in folders]
    if not folders or missing:
        raise _nothing(corpus, "folder", left_out, *missing[:1])
    outer = {path: folders[path] for path in outermost(folders)}
    return system, outer if len(outer) > 1 else dict.fromkeys(outer, "")


def not_listed(name: str, path: str, error: Exception) -> NotListed:
    """What to raise when the storage itself fails."""
    return NotListed(f"the corpus {name!r} cannot be listed at {path} ({error}); check ingest.corpora")


def is_away(path: str, refusal: BadInput) -> bool:
    """Whether a corpus's path was refused because this machine does not have it, and not for what is there.

    A local path is away where it does not exist, a glob where the folder above its first special part does not, and a store
    where it could not be listed.
    """
    try:
        system, _ = fsspec.core.url_to_fs(path)
        if is_local(system):
            return not system.exists(_patterns("", path).base)
    except ANY_STORAGE_ERROR:
        # A store without its library, or braces that are not balanced: the refusal says which.
        pass
    return isinstance(refusal, NotListed)


def _patterns(name: str, given: str) -> Found:
    try:
        system, path = fsspec.core.url_to_fs(given)
        if not _is_special(path) or system.exists(path):
            return Found(system, [Pattern(path, is_glob=False, base=path)], path)
        pattern = _with_literal_start(system, path)
    except ANY_STORAGE_ERROR as error:
        raise not_listed(name, given, error) from None
    ranges = [abs(int(last) - int(first)) + 1 for first, last in RANGE.findall(pattern)]
    if math.prod(ranges) > MAX_EXPANDED:
        # braceexpand holds every range as a list.
        raise BadInput(f"the corpus {name!r}: the braces in {given} stand for over {MAX_EXPANDED:,} paths; use *")
    try:
        expanded = dict.fromkeys(braceexpand(pattern))
    except ValueError:
        raise BadInput(
            f"the corpus {name!r}: the braces in {given} are not balanced; check the path in ingest.corpora"
        ) from None
    patterns = [_pattern(path) for path in expanded]
    if len(patterns) > 1 and not is_local(system):
        # A store answers for a whole folder as fast as for one file, and fsspec remembers the answer.
        for parent in {pattern.path.rpartition("/")[0] for pattern in patterns}:
            with suppress(ANY_STORAGE_ERROR):
                system.ls(parent)
    first = re.search(r"(?<!\\)\{|[*?]|\[(?![*?\[]\])", pattern)
    return Found(system, patterns, _plain(pattern[: first.start() if first else None].rpartition("/")[0]))


def _is_special(path: str) -> bool:
    return any(character in path for character in (*GLOB_CHARACTERS, "{"))


def _with_literal_start(system: Any, path: str) -> str:
    """The path with braces and globs escaped in those of its first parts that exist as they stand."""
    start, rest = "", path
    while "/" in rest:
        part, _, others = rest.partition("/")
        if _is_special(part) and not system.exists(start + part):
            break
        start, rest = f"{start}{part}/", others
    return re.sub(r"([{},\\])", r"\\\1", glob.escape(start)) + rest


def _pattern(path: str) -> Pattern:
    """Of a path without braces, in which "[[]" stands for a bracket that is meant as one."""
    first = re.search(r"[*?]|\[(?![*?\[]\])", path)
    if not first:
        plain = _unescaped(path)
        return Pattern(plain, is_glob=False, base=plain)
    return Pattern(path, is_glob=True, base=_unescaped(path[: first.start()].rpartition("/")[0]))


def _unescaped(path: str) -> str:
    return re.sub(r"\[([*?\[])\]", r"\1", path)


def _plain(start: str) -> str:
    """The beginning of a pattern, without the escapes of either kind."""
    return _unescaped(re.sub(r"\\(.)", r"\1", start))


def _files_of(system: Any, pattern: Pattern, suffixes: tuple[str, ...], walk: Walk, passed_over: PassedOver) -> Iterator[str]:
    """The files of one path: itself, those of a folder, or of a glob, whose folders are read like any other."""
    if not pattern.is_glob and (kind := _kind(system, pattern.path)) != "directory":
        if kind:
            yield pattern.path
        return
    for path in _matches(system, pattern, passed_over):
        for file in walk.files(path) if _kind(system, path) == "directory" else [path]:
            if has_suffix(file, suffixes):
                yield file
            elif file.rpartition(".")[2].lower() in ALL_PICTURES and ".tar" not in suffixes:
                passed_over.add(NAMED_PICTURES, file)
            else:
                passed_over.add(another_ending(file), file)


def _matches(system: Any, pattern: Pattern, passed_over: PassedOver) -> Iterator[str]:
    """What a glob finds, or the one path; a system's own files are left out, by their path below the glob's base."""
    if not pattern.is_glob:
        yield pattern.path.rstrip("/") or "/"
        return
    found = sorted(map(str, system.glob(pattern.path)))
    if not found and not is_local(system):
        # A glob finds nothing as well where an HTTP server does not answer; then this raises.
        _kind(system, _unescaped(pattern.path))
    for path in found:
        if is_system_path(path.removeprefix(pattern.base)):
            passed_over.add(SYSTEM, path)
        else:
            yield path.rstrip("/")


def _folders_of(system: Any, patterns: Iterable[Pattern], passed_over: PassedOver) -> Iterator[str]:
    for pattern in patterns:
        for path in _matches(system, pattern, passed_over):
            if _kind(system, path) == "directory":
                yield path
            elif pattern.is_glob:
                passed_over.add(BESIDE_FOLDERS, path)


def _kind(system: Any, path: str) -> str | None:
    """ "file", "directory" or another word of fsspec's; None where nothing is."""
    try:
        return system.info(path)["type"]
    except (FileNotFoundError, NotADirectoryError) as error:
        # Of http, fsspec says that a file is missing where no server answers, or one refuses.
        cause = error.__cause__
        if type(cause).__module__.startswith("aiohttp") and cause and getattr(cause, "status", 0) not in (404, 410):
            raise cause from None
        return None


def has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a file's name ends with one of them, by itself or compressed."""
    lower = name.lower()
    return lower.endswith(suffixes) or lower.endswith(tuple(f"{a}{b}" for a in suffixes for b in COMPRESSED_ENDINGS))


def _nothing(corpus: CorpusConfig, what: str, passed_over: PassedOver, path: str = "") -> BadInput:
    left = passed_over.sentences()
    seen = f" (passed over: {'; '.join(left)})" if left else ""
    where = f"{path}, which {corpus.path} stands for" if path and path != corpus.path else corpus.path
    return BadInput(f"the corpus {corpus.name!r} has no {what} at {where}{seen}; check the path in ingest.corpora")
