"""Hostile records, to be rejected alone. D4: corrupt images; D5: bombs; D8: captions."""

from __future__ import annotations

import binascii
import gzip
import io
import struct
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.faults.corpora import Read, caption, pairs, params_for, picture, read_in, tar_bytes
from benchmarks.faults.counts import Counts, Found, Setting, Trial, by_default, counted, flip, misses, total
from components.data.ingest.decode_pool import decode_many
from components.data.ingest.decode_worker import DecodeFailure
from core.errors import GateRefused

MOST_RSS_MIB, MOST_S = 1024, 2.0


def corrupt_images(setting: Setting) -> Found:
    """D4: one corrupt image, as many as the threshold allows, and a tenth of all; the last must fail the stage."""
    num_rows = 400 if setting.quick else 3000
    share = 2 / num_rows
    caught, lost, doubled, injected = 0, 0, 0, 0
    missed: list[str] = []
    plain: list[Counts] = []
    for number in (1, 2, num_rows // 10):
        bad = sorted(setting.generator.choice(num_rows, number, replace=False).tolist())
        path = setting.folder / "shard.tar"
        path.write_bytes(tar_bytes(list(_with_corrupt(num_rows, bad))))
        out = setting.folder / f"out-{number}"
        corpus = {"format": "webdataset", "path": str(path)}
        injected += number
        stopped = by_default(lambda path=path: _webdataset(path), lambda _: Trial("no error", wrong_bytes=1))
        plain.append(Counts(number, 0 if stopped.missed else number))
        try:
            found = read_in(out, corpus, overrides=(f"ingest.max_rejected_share={share}",))
        except GateRefused:
            lines = (out / "quarantine.jsonl").read_text().splitlines()
            caught += len(lines)
            missed += [] if number > 2 and len(lines) == number else [f"{number} corrupt: refused with {len(lines)} lines"]
            continue
        positions = [row["position"].rpartition(":")[2] for row in found.rejected]
        right = positions == [f"{n:06d}" for n in bad] and found.is_whole() and number <= 2
        missed += [] if right else [f"{number} corrupt of {num_rows}: rejected {len(positions)}"]
        caught += len(positions)
        lost += num_rows - number - len(found.documents) if len(found.documents) < num_rows - number else 0
        doubled += len(found.documents) - len({document.key for document in found.documents})
    note = f"of {num_rows} rows each time; webdataset stops at the first one"
    defaults = {"webdataset.decode": total(plain)}
    return Found(Counts(injected, min(caught, injected), lost, doubled), defaults, tuple(missed), note)


def bombs(setting: Setting) -> Found:
    """D5: pictures and archives that unpack to far more than they are; refused before they are decoded."""
    small = setting.quick
    cases = dict(_bombs(small))
    rules = params_for().ingest.images
    good = picture(1)
    items = [part for data in cases.values() for part in (data, good)]
    trials, plain, most_s, most_mib = [], [], 0.0, 0.0
    before_s = time.monotonic()
    names = iter([name for name in cases for _ in range(2)])
    for index, (data, (result,)) in enumerate(decode_many(items, lambda d: [d], side_px=16, rules=rules, num_workers=1)):
        name, is_bomb = next(names), data is not good
        spent_s, before_s = time.monotonic() - before_s, time.monotonic()
        # The first one waits for the process to start.
        most_s, most_mib = max(most_s, spent_s if index else 0.0), max(most_mib, _decoders_peak_mib())
        if is_bomb:
            refused = isinstance(result, DecodeFailure)
            trials.append(Trial("" if refused else f"{name}: decoded", wrong_bytes=int(not refused)))
            plain.append(by_default(lambda data=data: _pillow(data), lambda _: Trial("decoded", wrong_bytes=1)))
        elif isinstance(result, DecodeFailure):
            trials[-1] = Trial(f"{name}: took a good picture with it ({result.reason})", rows_lost=1)
    if most_mib > MOST_RSS_MIB or most_s > MOST_S:
        trials[-1] = Trial(f"{most_mib:.0f} MiB and {most_s:.1f} s at most")
    trials.append(_gzip_bomb(setting.folder, 100 if small else 1000))
    note = f"decoder's peak {most_mib:.0f} MiB, slowest {most_s:.2f} s"
    return Found(counted(trials), {"Pillow": counted(plain)}, misses(trials), note)


def hostile_captions(setting: Setting) -> Found:
    """D8: captions that are empty, huge, no UTF-8, reordered, or spell control tokens."""
    from components.data.token_stream import token_stream
    from core.tokenizer import SPECIAL_TOKENS, train_tokenizer

    spelled = [f"a {token} b" for token in (*SPECIAL_TOKENS.values(), "<|image|>", "<|endoftext|>")]
    refused = [b"", b" \n", b"caf\xe9", b"\xff\xfe", b"nul\0here"]
    kept = [b"word " * 200_000, "a \u202e b".encode(), *(text.encode() for text in spelled)]
    members = pairs(range(5))
    for number, text in enumerate([*refused, *kept]):
        members += [(f"bad{number:03d}.png", picture(100 + number)), (f"bad{number:03d}.txt", text)]
    path = setting.folder / "shard.tar"
    path.write_bytes(tar_bytes(members))
    found = read_in(setting.folder / "out", {"format": "webdataset", "path": str(path)})
    tokenizer = train_tokenizer([text for document in found.documents for text in document.texts], 300)
    control = set(tokenizer.special_ids.values())
    notes = found.collected.corpora["mine"].notes
    texts = {document.key: document.texts[0] for document in found.documents}
    spans = sum(
        len(control & set(tokenizer.encode(text)))
        + (token_stream(tokenizer, document).ids.count(tokenizer.special_ids["boi"]) != len(document.images))
        for document in found.documents
        for text in document.texts
    )
    checks = {
        "unusable captions rejected": [f"bad{n:03d}" in row["position"] for n, row in enumerate(found.rejected)] == [True] * 5,
        "a huge caption truncated": len(texts.get("bad005", "x" * 9999).encode()) <= 4096,
        "notes counted": notes.total() == 2 + len(spelled),
        "every other row kept": len(texts) == 5 + len(kept) and found.is_whole(),
        "text as it was": all(texts.get(f"bad{7 + n:03d}") == text for n, text in enumerate(spelled)),
        "no control token from text": spans == 0,
    }
    missed = tuple(f"not so: {what}" for what, holds in checks.items() if not holds)
    injected = len(refused) + len(kept)
    ours = Counts(injected, injected - len(missed), rows_lost=5 + len(kept) - len(texts), wrong_bytes_accepted=spans)
    return Found(ours, {"tokenizers": _tokenizers(found, spelled)}, missed)


def _with_corrupt(num_rows: int, bad: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    """Samples in which the images of `bad` are junk, cut short, or have a flipped byte under PNG's own checksum."""
    chosen = set(bad)
    for n in range(num_rows):
        data = picture(n, 8, 8)
        if n in chosen:
            broken = (b"\x89PNG junk", data[: len(data) // 2], flip(data, data.index(b"IDAT") + 20, 1))[n % 3]
            assert broken != data
            data = broken
        yield f"{n:06d}.png", data
        yield f"{n:06d}.txt", caption(n).encode()


def _webdataset(path: Path) -> int:
    from webdataset.compat import WebDataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data: Any = WebDataset(str(path), shardshuffle=False)
        return sum(1 for _ in data.decode("rgb8"))


def _bombs(small: bool) -> Iterator[tuple[str, bytes]]:
    yield "PNG of 144 megapixels", _flat_png(12_000, 12_000)
    yield "PNG of 400 megapixels", _flat_png(20_000, 20_000)
    yield "PNG of 1 x 10^6 pixels", _flat_png(1_000_000, 1)
    yield "PNG that lies about its size", _flat_png(2**31 - 1, 2**31 - 1, rows=10)
    yield "EPS under another name", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) run\n"
    yield "SVG", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>'
    yield "GIF of a million frames", _gif(20_000 if small else 1_000_000)
    packed = io.BytesIO()
    np.savez_compressed(packed, zeros=np.zeros(10**8 if small else 10**9, np.uint8))
    yield "npz of a gigabyte", packed.getvalue()


def _flat_png(width: int, height: int, rows: int | None = None) -> bytes:
    """A black picture of one bit a pixel; rows: how many it really has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", binascii.crc32(kind + data))

    row, packer = bytes(1 + (width + 7) // 8) if rows is None else bytes(99), zlib.compressobj(1)
    data = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _gif(num_frames: int) -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame * num_frames + b"\x3b"


def _decoders_peak_mib() -> float:
    """High-water mark of the memory of the decoding processes that this one has started."""
    import psutil

    peaks = [0.0]
    for child in psutil.Process().children():
        if "components.data.ingest.decode_worker" in child.cmdline():
            status = Path(f"/proc/{child.pid}/status").read_text()
            peaks += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")]
    return max(peaks)


def _pillow(data: bytes) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image.size


def _gzip_bomb(folder: Path, mib: int) -> Trial:
    """A line of so many MiB, packed a thousandfold, between good ones: one bad row, and little memory."""
    path = folder / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(mib):
            file.write(bytes(2**20))
        file.write(b'"}\n{"text": "after"}\n')
    found = read_in(folder / "out", {"format": "jsonl", "path": str(path)})
    texts = {document.texts[0] for document in found.documents}
    right = texts == {"before", "after"} and len(found.rejected) == 1
    return Trial("" if right else f"gzip bomb: {sorted(texts)[:3]}", rows_lost=len({"before", "after"} - texts))


def _tokenizers(found: Read, spelled: Sequence[str]) -> Counts:
    """The same texts through the tokenizers library as it comes, special tokens included."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from core.tokenizer import SPECIAL_TOKENS

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS.values()))
    control = {tokenizer.token_to_id(token) for token in SPECIAL_TOKENS.values()}
    ours = [text for text in spelled if any(token in text for token in SPECIAL_TOKENS.values())]
    injected = sum(bool(control & set(tokenizer.encode(text).ids)) for text in ours)
    assert len(found.documents) > len(ours)
    return Counts(len(ours), len(ours) - injected, wrong_bytes_accepted=injected)
