"""How does any corpus become documents? A bad row is rejected alone; a file that cannot be read stops the stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import fsspec

from components.data.config import CorpusConfig, IngestConfig
from components.data.documents import Document, ImageSegment, TextSegment
from components.data.images import ImageError, to_square_png
from components.data.prose import read_prose
from components.data.read_tables import JSONL_SUFFIXES, PARQUET_SUFFIXES, read_jsonl, read_parquet
from components.data.read_webdataset import SUFFIXES as TAR_SUFFIXES
from components.data.read_webdataset import read_webdataset
from components.data.rejected import Rejected
from components.data.rows import Row
from components.data.scenes import SCENE_SIDE_PX, make_scenes
from components.data.splits import split_of, uniform_of
from components.runtime.failure import BadInput

FileReader = Callable[[IO[bytes], str, str], Iterator[Row | Rejected]]

BUILT_IN = ("digit_scenes", "python_prose")
FILE_READERS: dict[str, tuple[FileReader, tuple[str, ...]]] = {
    "webdataset": (read_webdataset, TAR_SUFFIXES),
    "parquet": (read_parquet, PARQUET_SUFFIXES),
    "jsonl": (read_jsonl, JSONL_SUFFIXES),
}


def read_corpus(corpus: CorpusConfig, config: IngestConfig) -> Iterator[Document | Rejected]:
    """Every document of one corpus, with a split and images as PNG of image_side_px; a Rejected for each unusable row.

    Of rows with the same key the first is kept. BadInput for a missing path, an unreadable file or an empty corpus.
    """
    empty = True
    for found in _built_in(corpus, config) if corpus.format in BUILT_IN else _documents(corpus, config):
        empty = False
        yield found
    if empty:
        raise BadInput(
            f"the corpus {corpus.name!r} is empty; put data at {corpus.path or corpus.format} or take it out of ingest.corpora"
        )


def corpus_files(corpus: CorpusConfig) -> tuple[Any, list[str]]:
    """The fsspec file system and the sorted paths that corpus.path names: a file, folder or glob, local or a URL."""
    suffixes = FILE_READERS[corpus.format][1]
    try:
        system, path = fsspec.core.url_to_fs(corpus.path)
        if any(character in path for character in "*?["):
            files = system.glob(path)
        elif system.isdir(path):
            files = [name for name in system.find(path) if name.endswith(suffixes)]
        else:
            files = [path] if system.exists(path) else []
    except (OSError, ValueError, ImportError) as error:
        raise BadInput(
            f"the corpus {corpus.name!r} cannot be listed at {corpus.path} ({error}); check ingest.corpora"
        ) from None
    if not files:
        raise BadInput(
            f"the corpus {corpus.name!r} has no {' or '.join(suffixes)} files at {corpus.path};"
            " check the path in ingest.corpora"
        )
    return system, sorted(map(str, files))


def _built_in(corpus: CorpusConfig, config: IngestConfig) -> Iterator[Document]:
    if corpus.format == "python_prose":
        yield from read_prose(config.prose, config.split_shares, seed=config.seed, source=corpus.name)
        return
    shares, share = config.split_shares, config.caption_first_share
    for scene in make_scenes(config.scenes, shares, seed=config.seed, caption_first_share=share, source=corpus.name):
        yield _resized(scene, config.image_side_px)


def _documents(corpus: CorpusConfig, config: IngestConfig) -> Iterator[Document | Rejected]:
    kept: set[str] = set()
    for row in _file_rows(corpus):
        if isinstance(row, Row) and row.key in kept:
            yield Rejected(corpus.name, _printable(row.position), "duplicate key")
            continue
        document = row if isinstance(row, Rejected) else _document(row, corpus.name, config)
        if isinstance(document, Document):
            kept.add(document.key)
        yield document


def _file_rows(corpus: CorpusConfig) -> Iterator[Row | Rejected]:
    system, files = corpus_files(corpus)
    reader = FILE_READERS[corpus.format][0]
    for path in files:
        compression = "gzip" if path.endswith((".gz", ".tgz")) else None
        # Paths of this machine have no place in outputs that are compared between machines.
        name = path.removeprefix(f"{Path.cwd()}/")
        try:
            file = system.open(path, "rb", compression=compression)
        except OSError as error:
            raise BadInput(f"{name} cannot be opened ({error}); check the path in ingest.corpora") from None
        with file:
            yield from reader(file, name, corpus.name)


def _document(row: Row, source: str, config: IngestConfig) -> Document | Rejected:
    """The document of one row, or why it cannot be one."""
    try:
        _check_text(row.key, "key")
        text = TextSegment(_check_text(row.text, "caption" if row.wants_image else "text"))
        if row.wants_image and not row.image:
            raise _UnusableError("missing image")
        split = split_of(row.key, config.split_shares, config.seed)
        if not row.image:
            return Document(key=row.key, source=source, split=split, segments=(text,))
        image = ImageSegment(to_square_png(row.image, config.image_side_px))
    except (_UnusableError, ImageError) as error:
        return Rejected(source, _printable(row.position), str(error))
    caption_first = uniform_of("layout", row.key, config.seed) < config.caption_first_share
    segments = (text, image) if caption_first else (image, text)
    return Document(key=row.key, source=source, split=split, segments=segments)


def _check_text(value: object, what: str) -> str:
    """`value` as a string that is valid UTF-8 and not blank."""
    try:
        text = value.decode() if isinstance(value, bytes) else value
        if text is None or (isinstance(text, str) and not text.strip()):
            raise _UnusableError(f"missing {what}")
        if not isinstance(text, str):
            raise _UnusableError(f"{what} is not text")
        # JSON and tar names can hold lone surrogates, which no file written later could.
        text.encode()
    except UnicodeError:
        raise _UnusableError("invalid UTF-8") from None
    return text


def _printable(position: str) -> str:
    return position.encode(errors="backslashreplace").decode()


def _resized(scene: Document, side_px: int) -> Document:
    if side_px == SCENE_SIDE_PX:
        return scene
    segments = tuple(
        ImageSegment(to_square_png(segment.data, side_px)) if isinstance(segment, ImageSegment) else segment
        for segment in scene.segments
    )
    return Document(key=scene.key, source=scene.source, split=scene.split, segments=segments, meta=scene.meta)


class _UnusableError(ValueError):
    """A row cannot be used; the message is the reason."""
