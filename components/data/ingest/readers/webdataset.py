"""WebDataset tars: a picture and its caption (key.jpg, key.txt, key.json) are a record, read in place; nothing is unpacked.

img2dataset writes such tars. Every member is a part of a record, or is counted as something else. The parts of a record stand
side by side as a rule, and are held in memory until they are complete; those that do not are brought together at the end of
the tar, where it can be read out of order. tarfile ends silently at a cut or at a damaged header, so each tar must also show
the end mark of two zero blocks.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import IO, NamedTuple

from components.data.ingest.digest_set import DigestSet, digest
from components.data.ingest.readers.corpus_files import CorpusFile
from components.data.ingest.readers.pairing import (
    BESIDE,
    CAPTION_ENDINGS,
    SIDECAR_ENDINGS,
    Group,
    Part,
    captions_of,
    grouped,
    part_of,
    pictures_of,
    why_several,
)
from components.data.ingest.readers.passed_over import SYSTEM, another_ending, is_system_path
from components.data.ingest.readers.records import (
    CAPTION_FIELDS,
    DOUBLED_KEY,
    MAX_FILE_BYTES,
    Record,
    first_text,
    pair_record,
    printable,
)
from components.data.ingest.readers.tar_leftovers import Leftovers, Slot, plain_name
from components.data.ingest.readers.unpacking import UNREADABLE
from components.data.ingest.rejected import Rejected
from core.errors import BadInput
from core.text import DoubledKey, each_key_once

SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".tzst")
# Parts under one outer key that are looked at together; of more of them, those of the first records are handed on.
WINDOW_PARTS, WINDOW_BYTES = 64, 64 * 2**20
# WebDataset's entries about the shard itself.
SHARD_FACTS = re.compile(r"__[^/]*__($|/)")
APART = "picture and caption stand apart in the tar, and it cannot be read out of order; write it with tar --sort=name"
FAR_LINK = "member is a link, and the tar cannot be read out of order; write it with tar --dereference --hard-dereference"
NO_TARGET = "member is a link, and what it stands for is no file of the tar"
NO_FILE = f"member is no plain file, or over {MAX_FILE_BYTES // 2**20} MiB"


class _Tar(NamedTuple):
    """One tar that is being read."""

    file: CorpusFile
    leftovers: Leftovers
    whole: DigestSet
    """Digests of the outer keys that are the key of a whole record."""

    @property
    def can_go_back(self) -> bool:
        """Whether reading here and there costs no more than reading on."""
        return self.file.is_local and self.file.is_plain

    def rejected(self, group: Group, reason: str) -> Rejected:
        return Rejected(self.file.source, f"{self.file.name}:{group.key}", reason)

    def pass_over(self, parts: Iterable[Part]) -> None:
        for part in parts:
            self.file.reading.passed_over.add(BESIDE, f"{self.file.name}:{part.key}.{part.ending}")


def read_webdataset(file: CorpusFile) -> Iterator[Record | Rejected]:
    """The records of one tar. BadInput when it is damaged or cut short."""
    try:
        with closing(Leftovers()) as leftovers, tarfile.open(fileobj=file.bytes, mode="r:") as members:
            tar = _Tar(file, leftovers, DigestSet())
            for parts in _windows(_parts(members, file)):
                yield from _records(parts, tar)
            _check_end(file.bytes, members.offset, file.name)
            yield from _late_records(tar)
    except (tarfile.TarError, *UNREADABLE) as error:
        raise BadInput(f"{file.name} is not a whole tar file ({error}); fetch it again") from None


def _parts(members: tarfile.TarFile, file: CorpusFile) -> Iterator[Part]:
    passed_over = file.reading.passed_over
    for member in members:
        # tarfile remembers every member it has read, which adds up over a long shard.
        members.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
        name = member.name.removeprefix("./")
        if member.isdir():
            continue
        if is_system_path(name) or SHARD_FACTS.match(name):
            passed_over.add(SYSTEM, f"{file.name}:{name}")
        elif part := part_of(name, None, captions=CAPTION_ENDINGS | SIDECAR_ENDINGS):
            yield part._replace(value=_slot(members, member))
        else:
            passed_over.add(another_ending(name), f"{file.name}:{name}")


def _slot(members: tarfile.TarFile, member: tarfile.TarInfo) -> Slot:
    if member.issym():
        return Slot(None, -1, 0, link=plain_name(f"{member.name.rpartition('/')[0]}/{member.linkname}"))
    if member.islnk():
        return Slot(None, -1, 0, link=plain_name(member.linkname))
    opened = members.extractfile(member) if member.isreg() and member.size <= MAX_FILE_BYTES else None
    if opened is None:
        return Slot(None, -1, 0, fault=NO_FILE)
    # A sparse member's data does not lie in one piece.
    return Slot(opened.read(), -1 if member.issparse() else member.offset_data, member.size)


def _windows(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Neighbours of one outer key; of very many, as in a tar whose names all begin with "v1.", some whole keys at a time."""
    held: list[Part] = []
    num_bytes = 0
    for part in parts:
        is_full = len(held) >= WINDOW_PARTS or num_bytes >= WINDOW_BYTES
        if held and (part.outer != held[0].outer or (is_full and part.key != held[-1].key)):
            yield held
            held, num_bytes = [], 0
        held.append(part)
        num_bytes += part.value.size
    if held:
        yield held


def _records(parts: list[Part], tar: _Tar) -> Iterator[Record | Rejected]:
    """The records that are whole; what is not, or is a link, waits for the end of the tar."""
    outer = digest(parts[0].outer)
    groups, beside = grouped(parts, outer_is_whole=outer in tar.whole)
    tar.pass_over(beside)
    for group in groups:
        if any(part.value.fault for part in group.parts):
            yield tar.rejected(group, NO_FILE)
        elif not group.is_whole or any(part.value.link for part in group.parts):
            tar.leftovers.add(group.parts)
        else:
            if group.key == group.parts[0].outer:
                tar.whole.add(outer)
            yield _record(group, tar)


def _late_records(tar: _Tar) -> Iterator[Record | Rejected]:
    if tar.can_go_back:
        tar.leftovers.find_targets(tar.file.bytes)
    for parts in tar.leftovers.by_outer():
        groups, beside = grouped(parts, outer_is_whole=digest(parts[0].outer) in tar.whole)
        tar.pass_over(beside)
        for group in groups:
            yield _late_record(group, tar)


def _late_record(group: Group, tar: _Tar) -> Record | Rejected:
    slots: list[Slot] = [part.value for part in group.parts]
    if any(slot.link for slot in slots):
        return tar.rejected(group, NO_TARGET if tar.can_go_back else FAR_LINK)
    if not group.is_whole:
        return tar.rejected(group, "missing caption" if group.parts[0].is_picture else "missing image")
    if any(slot.size > MAX_FILE_BYTES for slot in slots):
        return tar.rejected(group, NO_FILE)
    if not tar.can_go_back or any(slot.offset < 0 for slot in slots):
        return tar.rejected(group, APART)
    read = [part._replace(value=part.value._replace(data=_at(tar.file.bytes, part.value))) for part in group.parts]
    return _record(group._replace(parts=tuple(read)), tar)


def _at(file: IO[bytes], slot: Slot) -> bytes:
    file.seek(slot.offset)
    return file.read(slot.size)


def _record(group: Group, tar: _Tar) -> Record | Rejected:
    images, others = pictures_of(group, tar.file.listed_pictures)
    texts, sidecars = captions_of(group), captions_of(group, SIDECAR_ENDINGS)
    if max(map(len, (images, texts, sidecars))) > 1:
        return tar.rejected(group, why_several(group))
    tar.pass_over(others)
    captions: object = texts[0].value.data if texts else None
    if captions is None and sidecars:
        try:
            found = json.loads(sidecars[0].value.data, object_pairs_hook=each_key_once)
            captions = first_text(found, CAPTION_FIELDS)
        except DoubledKey:
            return tar.rejected(group, DOUBLED_KEY)
        except (ValueError, RecursionError):
            return tar.rejected(group, "broken JSON")
    return pair_record(f"{tar.file.name}:{group.key}", printable(group.key), captions, images[0].value.data if images else None)


def _check_end(file: IO[bytes], offset: int, name: str) -> None:
    """Two zero blocks must follow the last member, then only zeros; reading on also checks gzip's own digest."""
    file.seek(offset)
    end_mark = bytes(2 * tarfile.BLOCKSIZE)
    if file.read(len(end_mark)) != end_mark:
        raise BadInput(f"{name} is cut short or damaged at byte {offset}: no end mark follows; fetch it again")
    while padding := file.read(2**20):
        if any(padding):
            raise BadInput(f"{name} goes on after its end mark at byte {offset}; unpack it and write one tar")
