"""How is a WebDataset tar read? Neighbours of one key (key.jpg, key.txt, key.json) are a row; nothing is unpacked.

img2dataset writes such tars. tarfile ends silently at a cut or at a damaged header, so each tar must also show the end
mark of two zero blocks.
"""

from __future__ import annotations

import itertools
import json
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

from components.data.intake.rejected import Rejected
from components.data.readers.corpus_files import CorpusFile
from components.data.readers.rows import CAPTION_FIELDS, MAX_FILE_BYTES, Row, first_text, pair_row
from components.runtime.failure import BadInput

SUFFIXES = (".tar", ".tar.gz", ".tgz")
IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")
TEXT_ENDINGS = ("txt", "json")


class _Member(NamedTuple):
    key: str
    ending: str
    data: bytes | None


def read_webdataset(file: CorpusFile) -> Iterator[Row | Rejected]:
    """The rows of one tar. BadInput when it is damaged or cut short."""
    try:
        with tarfile.open(fileobj=file.bytes, mode="r:") as tar:
            for key, members in itertools.groupby(_members(tar), key=lambda member: member.key):
                yield _row(key, list(members), f"{file.name}:{key}", file.source)
            _check_end(file.bytes, tar.offset, file.name)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise BadInput(f"{file.name} is not a whole tar file ({error}); fetch it again") from None


def _members(tar: tarfile.TarFile) -> Iterator[_Member]:
    for member in tar:
        folder, _, base = member.name.removeprefix("./").rpartition("/")
        stem, _, ending = base.partition(".")
        ending = ending.lower()
        if member.isdir() or not stem or ending not in (*IMAGE_ENDINGS, *TEXT_ENDINGS):
            continue
        file = tar.extractfile(member) if member.isreg() and member.size <= MAX_FILE_BYTES else None
        yield _Member(f"{folder}/{stem}" if folder else stem, ending, None if file is None else file.read())
        # tarfile remembers every member it has read, which adds up over a long shard.
        tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]


def _row(key: str, members: list[_Member], position: str, source: str) -> Row | Rejected:
    by_ending = {member.ending: member.data for member in members}
    if None in by_ending.values():
        return Rejected(source, position, f"member is no plain file, or over {MAX_FILE_BYTES // 2**20} MiB")
    images = [data for ending, data in by_ending.items() if ending in IMAGE_ENDINGS]
    if len(by_ending) != len(members) or len(images) > 1:
        return Rejected(source, position, "several files of one kind under one key")
    captions: object = by_ending.get("txt")
    if captions is None and by_ending.get("json") is not None:
        try:
            captions = first_text(json.loads(by_ending["json"] or b""), CAPTION_FIELDS)
        except (ValueError, RecursionError):
            return Rejected(source, position, "broken JSON")
    return pair_row(position, key, captions, images[0] if images else None)


def _check_end(file: IO[bytes], offset: int, name: str) -> None:
    """Two zero blocks must follow the last member, then only zeros; reading on also checks gzip's own digest."""
    file.seek(offset)
    end_mark = bytes(2 * tarfile.BLOCKSIZE)
    if file.read(len(end_mark)) != end_mark:
        raise BadInput(f"{name} is cut short or damaged at byte {offset}: no end mark follows; fetch it again")
    while padding := file.read(2**20):
        if any(padding):
            raise BadInput(f"{name} goes on after its end mark at byte {offset}; unpack it and write one tar")
