"""Damaged and hostile tars. D1: cut or with a flipped header; D6: members that lead out; D7: keys that come again."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.corpora import caption, pairs, picture, read_in, tar_bytes
from benchmarks.faults.counts import Counts, Found, Setting, Trial, by_default, counted, flip, misses
from core.errors import BadInput

NUM_SAMPLES = 50
# Of a header: bytes whose change its checksum tells; the checksum's own field may be written in several ways.
CHECKED = (*range(148), *range(156, 257))


class Layout(NamedTuple):
    """Where a member lies in its tar, in bytes: its header, its data, the end of its data, the next header."""

    header: int
    data: int
    end: int
    next: int


def cut_tars(setting: Setting) -> Found:
    """D1: cut at a record boundary, in a header, in a payload, in padding; and one flipped byte in a header."""
    data = tar_bytes(pairs(range(NUM_SAMPLES)))
    path = setting.folder / "shard.tar"
    path.write_bytes(data)
    assert len(_ours(setting.folder, path)) == NUM_SAMPLES, "the tar is good before anything is injected"
    ours, plain, webdataset = [], [], []
    for what, damaged in _damages(data, setting, rounds=1 if setting.quick else 10):
        assert damaged != data
        path.write_bytes(damaged)
        ours.append(_refused(what, lambda: _ours(setting.folder, path)))
        plain.append(by_default(lambda: _tarfile(path), _as_expected))
        webdataset.append(by_default(lambda: _webdataset(path), _as_expected))
    return Found(counted(ours), {"tarfile": counted(plain), "webdataset": counted(webdataset)}, misses(ours))


def hostile_members(setting: Setting) -> Found:
    """D6: names that lead out of the folder, members that are no files, names and sizes that lie."""
    ours, plain = [], []
    for number, (what, data) in enumerate(_hostile(setting.folder)):
        folder = setting.folder / f"case-{number}" / "deep" / "er"
        folder.mkdir(parents=True)
        path = folder / "shard.tar"
        path.write_bytes(data)
        ours.append(_nothing_outside(what, folder, path))
        plain.append(by_default(partial(_extract_all, folder, path), _got_out))
    return Found(counted(ours), {"tarfile.extractall": counted(plain)}, misses(ours))


def duplicate_keys(setting: Setting) -> Found:
    """D7: keys that come again in a tar and in another one, and equal documents under other keys."""
    again, across, equal = 5, 7, 4
    first = [*pairs(range(20)), *((name, data) for name, data in pairs(range(again)))]
    equals = [
        member for n in range(equal) for member in ((f"x{n}.png", picture(n)), (f"x{n}.txt", f" {caption(n)}\n".encode()))
    ]
    (setting.folder / "0.tar").write_bytes(tar_bytes(first))
    (setting.folder / "1.tar").write_bytes(tar_bytes([*pairs(range(20 - across, 30)), *equals]))
    corpus = {"format": "webdataset", "path": str(setting.folder)}
    found = read_in(setting.folder / "out", corpus, overrides=("ingest.duplicates.exact=drop",))
    same_key = sum(row["reason"] == "duplicate key" for row in found.rejected)
    dropped = sum(counts.dropped for counts in found.collected.corpora.values())
    keys = Counter(document.key for document in found.documents)
    injected = again + across + equal
    lost = len({f"{n:06d}" for n in range(30)} - set(keys))
    doubled = sum(keys.values()) - len(keys) + sum(key.startswith("x") for key in keys)
    exact = (same_key, dropped) == (again + across, equal) and found.is_whole()
    ours = Counts(injected, min(same_key, again + across) + min(dropped, equal), lost, doubled)
    missed = () if exact else (f"{same_key} equal keys and {dropped} equal documents of {again + across} and {equal}",)
    samples = [sample for name in ("0.tar", "1.tar") for sample in _webdataset(setting.folder / name)]
    extra = len(samples) - 30
    return Found(ours, {"webdataset": Counts(injected, injected - extra, 0, extra)}, missed)


def layouts(data: bytes) -> list[Layout]:
    """Every member's place."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    ends = [member.offset_data + member.size for member in members]
    return [
        Layout(member.offset, member.offset_data, end, end + -end % tarfile.BLOCKSIZE)
        for member, end in zip(members, ends, strict=True)
    ]


def _damages(data: bytes, setting: Setting, rounds: int) -> Iterator[tuple[str, bytes]]:
    generator, members = setting.generator, layouts(data)

    def between(low: int, high: int) -> int:
        return int(generator.integers(low, high))

    for _ in range(rounds):
        at = members[2 * between(5, NUM_SAMPLES - 5)]  # an image
        yield "cut at a record boundary", data[: at.header]
        yield "cut within a sample", data[: at.next]
        yield "cut in a header", data[: at.header + between(1, tarfile.BLOCKSIZE)]
        yield "cut in a payload", data[: between(at.data + 1, at.end)]
        padded = next(member for member in members[between(5, NUM_SAMPLES) :] if member.next > member.end + 1)
        yield "cut in padding", data[: between(padded.end + 1, padded.next)]
        where = at.header + CHECKED[between(0, len(CHECKED))]
        yield "flipped byte in a header", flip(data, where, between(1, 256))


def _ours(folder: Path, path: Path) -> list[tuple[str, str]]:
    found = read_in(folder / "out", {"format": "webdataset", "path": str(path)})
    assert found.is_whole() and all(len(document.images) == 1 for document in found.documents)
    return [(document.key, document.texts[0]) for document in found.documents]


def _refused(what: str, read: Callable[[], list[tuple[str, str]]]) -> Trial:
    try:
        samples = read()
    except BadInput:
        return Trial()
    return _as_expected(samples)._replace(missed=f"{what}: {len(samples)} of {NUM_SAMPLES} rows and no error")


def _as_expected(samples: list[tuple[str, str]]) -> Trial:
    """What a reader gave without an error, against what was written; each sample a key and its caption."""
    right = {(f"{n:06d}", caption(n)) for n in range(NUM_SAMPLES)}
    wrong, lost = len(set(samples) - right), len(right - set(samples))
    return Trial("no error", rows_lost=lost, wrong_bytes=int(wrong > 0))


def _tarfile(path: Path) -> list[tuple[str, str]]:
    """Samples with image and caption, as a plain loop over tarfile finds them."""
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            stem, _, ending = member.name.partition(".")
            content = tar.extractfile(member)
            found.setdefault(stem, {})[ending] = content.read() if content else b""
    return [(key, parts["txt"].decode()) for key, parts in found.items() if set(parts) == {"png", "txt"}]


def _webdataset(path: Path) -> list[tuple[str, str]]:
    from webdataset.compat import WebDataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(WebDataset(str(path), shardshuffle=False))
    return [(sample["__key__"], sample["txt"].decode()) for sample in samples if {"png", "txt"} <= set(sample)]


def _hostile(folder: Path) -> Iterator[tuple[str, bytes]]:
    """What is wrong with each, and a tar of four good samples around it."""

    def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        return member

    def named(name: str, **pax: str) -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.pax_headers = pax
        return member

    bad = picture(99)
    cases: list[tuple[str, list[tuple[str | tarfile.TarInfo, bytes]]]] = [
        ("../x", [("../../x.png", bad), ("../../x.txt", b"out")]),
        ("a/../../x", [("a/../../../x.png", bad), ("a/../../../x.txt", b"out")]),
        ("absolute", [(f"{folder}/absolute.png", bad), (f"{folder}/absolute.txt", b"out")]),
        ("symlink", [(special("s.png", tarfile.SYMTYPE, "/etc/hostname"), b""), ("s.txt", b"link")]),
        ("symlink to a folder", [(special("d", tarfile.SYMTYPE, "../.."), b""), ("d/x.png", bad), ("d/x.txt", b"out")]),
        ("hardlink", [(special("h.png", tarfile.LNKTYPE, "../../etc/hostname"), b""), ("h.txt", b"link")]),
        ("device", [(special("n.png", tarfile.CHRTYPE), b""), ("n.txt", b"device")]),
        ("fifo", [(special("f.png", tarfile.FIFOTYPE), b""), ("f.txt", b"fifo")]),
        ("300 characters", [("n" * 300 + ".png", bad), ("n" * 300 + ".txt", b"long")]),
        ("NUL in a name", [(named("z.png", path="z\0z.png"), bad), (named("z.txt", path="z\0z.txt"), b"nul")]),
        ("names twice", [("t.png", bad), ("t.png", picture(98)), ("t.txt", b"twice")]),
        ("PAX size too large", [(named("p.png", size=str(10**12)), bad), ("p.txt", b"lie")]),
        ("PAX size too small", [(named("q.png", size="7"), bad), ("q.txt", b"lie")]),
    ]
    for what, members in cases:
        yield what, tar_bytes([*pairs(range(2)), *members, *pairs(range(2, 4))])


def _nothing_outside(what: str, folder: Path, path: Path) -> Trial:
    """Refused as a whole, or the four good rows and at most the bad one with its own bytes; and no file elsewhere."""
    above = folder.parents[2]
    before = _files(above)
    try:
        found = read_in(folder / "out", {"format": "webdataset", "path": str(path)})
    except BadInput:
        found = None
    inside = folder / "out"
    outside = [name for name in _files(above) - before if not name.is_relative_to(inside)]
    if outside:
        return Trial(f"{what}: {outside[0]} was written", wrong_bytes=1)
    if found is None:
        return Trial()
    texts = {document.texts[0] for document in found.documents}
    lost = len({caption(n) for n in range(4)} - texts)
    followed = sum(document.texts[0] in ("link", "device", "fifo", "lie", "twice") for document in found.documents)
    doubled = len(found.documents) - len(texts)
    missed = f"{what}: {lost} lost, {doubled} doubled, {followed} followed" if lost or followed or doubled else ""
    return Trial(missed, rows_lost=lost, rows_doubled=doubled, wrong_bytes=followed)


def _got_out(number: int) -> Trial:
    return Trial("got out" if number else "", wrong_bytes=number)


def _extract_all(folder: Path, path: Path) -> int:
    """How many files stand outside the target after tarfile's extractall, and special ones inside."""
    above, target = folder.parents[2], folder / "extracted"
    before = _files(above)
    with tarfile.open(path) as tar, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tar.extractall(target)
    after = _files(above) - before
    outside = [name for name in after if not name.is_relative_to(target)]
    special = [name for name in after if name not in outside and not stat.S_ISREG(os.lstat(name).st_mode)]
    for name in outside:
        name.unlink()
    return min(1, len(outside) + len(special))


def _files(folder: Path) -> set[Path]:
    return {Path(root) / name for root, _, names in os.walk(folder) for name in names}
