"""What a corpus is read from, as a fingerprint that changes when a file of it is added, changed, removed or linked anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import starmap
from pathlib import Path
from typing import Any

from components.data.config import BUILT_IN, MAYBE_WITH_IMAGES_FOLDER, CorpusConfig
from components.data.ingest.corpus import FILE_READERS
from components.data.ingest.readers.corpus_files import images_folder
from components.data.ingest.readers.endings import ALL_PICTURES
from components.data.ingest.readers.locating import ANY_STORAGE_ERROR, locate, locate_folders, not_listed
from components.data.ingest.readers.passed_over import PassedOver
from components.data.ingest.readers.walking import Walk, is_local, outermost
from core.errors import BadInput
from core.fingerprint import Entry, Fingerprint, fingerprint, local_entries, remote_entry


def path_fingerprints(corpus: CorpusConfig, *, not_below: Collection[Path] = ()) -> dict[str, Fingerprint]:
    """Of the files at corpus.path ("path"), and of the pictures beside them that records may name ("beside").

    Empty for what is built in. not_below: folders whose pictures are no corpus, though they lie beside one. BadInput where
    nothing is there, as the reader says it, or where a store does not answer.
    """
    if corpus.format in BUILT_IN:
        return {}
    left_out = PassedOver()
    with _storage_errors(corpus.name, corpus.path):
        if corpus.format == "image_folder":
            system, folders = locate_folders(corpus, left_out)
            return {"path": fingerprint(_below(system, folders))}
        system, files = locate(corpus, FILE_READERS[corpus.format][1], left_out)
        found = {"path": fingerprint(_listed(system, files))}
        if corpus.format in MAYBE_WITH_IMAGES_FOLDER and not corpus.images:
            found["beside"] = fingerprint(_beside(system, files, not_below))
    return found


def images_fingerprint(corpus: CorpusConfig) -> dict[str, Fingerprint]:
    """Of every file in the folder that corpus.images names ("images"), empty where it names none. BadInput as above."""
    if corpus.format in BUILT_IN or corpus.format == "image_folder":
        return {}
    with _storage_errors(corpus.name, corpus.images):
        images = images_folder(corpus)
        return {} if images.system is None else {"images": fingerprint(_below(images.system, [images.path]))}


@contextmanager
def _storage_errors(name: str, path: str) -> Iterator[None]:
    """Whatever a storage raises, as BadInput."""
    try:
        yield
    except BadInput:
        raise
    except ANY_STORAGE_ERROR as error:
        raise not_listed(name, path, error) from None


def _beside(system: Any, files: Iterable[str], not_below: Collection[Path]) -> Iterator[Entry]:
    """Every picture in the folders of the corpus's files."""
    excluded = tuple(f"{folder.absolute()}/" for folder in not_below)
    for entry in _below(system, outermost({path.rpartition("/")[0] for path in files})):
        is_picture = entry.name.rpartition(".")[2].lower() in ALL_PICTURES
        if is_picture and not str(Path(entry.name).absolute()).startswith(excluded):
            yield entry


def _below(system: Any, folders: Iterable[str]) -> Iterator[Entry]:
    """Every file below the folders, but for those that a system or a tool keeps there on this machine."""
    walk = Walk(system, PassedOver())
    for folder in folders:
        if is_local(system):
            yield from local_entries(walk.files(folder))
        else:
            yield from starmap(remote_entry, system.find(folder, detail=True).items())


def _listed(system: Any, files: Iterable[str]) -> Iterator[Entry]:
    """The files themselves; a store is asked for whole folders, which takes it no longer than one file."""
    if is_local(system):
        yield from local_entries(files)
        return
    folders = sorted({path.rpartition("/")[0] for path in files})
    listed = {str(info["name"]): info for folder in folders for info in _folder(system, folder)}
    for path in files:
        entry = remote_entry(path, listed.get(path, {}))
        yield entry if entry.version else remote_entry(path, system.info(path))


def _folder(system: Any, folder: str) -> list[dict[str, Any]]:
    """What a store lists; nothing where it has no listings (HTTP), and then each file is asked for."""
    try:
        return system.ls(folder, detail=True)
    except ANY_STORAGE_ERROR:
        return []
