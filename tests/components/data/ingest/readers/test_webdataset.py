"""WebDataset tars become documents; bad records are rejected one by one, and damaged tars are refused by name."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest

from components.data.documents import TextSegment
from components.data.ingest.corpus import read_records
from components.data.ingest.readers import webdataset
from components.data.ingest.readers.corpus_files import Reading
from components.data.ingest.readers.pairing import VARIANTS
from core.errors import BadInput
from core.png import decode_png, encode_png
from tests.components.data.corpora import (
    config_for,
    corpus_of,
    pairs,
    picture,
    read,
    reasons,
    tar_bytes,
    write_parquet,
)


def test_webdataset_pairs_become_documents(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes(pairs(range(60))))
    documents, rejected = read("webdataset", tmp_path / "a.tar")
    assert rejected == []
    assert sorted(documents) == [f"{n:06d}" for n in range(60)]
    for n, document in enumerate(documents.values()):
        assert document.texts == (f"caption {n}",)
        assert decode_png(document.images[0]).shape == (16, 16, 3)
        assert document.source == "mine"
        assert len(document.segments) == 2
    splits = [document.split for document in documents.values()]
    assert 24 < splits.count("train") < 48
    assert {"train", "validation", "test"} == set(splits)
    firsts = sum(isinstance(document.segments[0], TextSegment) for document in documents.values())
    assert 38 < firsts < 58


def test_webdataset_takes_captions_from_json_and_leaves_other_members(tmp_path: Path) -> None:
    members = [
        ("./sub/a.b.jpg", b""),
        ("./sub/0.JPG", picture(0)),
        ("./sub/0.json", json.dumps({"caption": "from json"}).encode()),
        ("./sub/0.cls", b"3"),
        ("1.png", picture(1)),
        ("1.json", b'{"caption": "not this"}'),
        ("1.txt", "this \u00e9".encode()),
    ]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    documents, rejected = read("webdataset", tmp_path / "a.tar")
    assert {key: document.texts for key, document in documents.items()} == {
        "sub/0": ("from json",),
        "1": ("this \u00e9",),
    }
    assert reasons(rejected) == [("a.b", "missing caption")]


def test_webdataset_bad_records_are_rejected_alone(tmp_path: Path) -> None:
    members = [
        *pairs(range(3)),
        ("corrupt.png", picture(9)[:200]),
        ("corrupt.txt", b"x"),
        ("nocaption.png", picture(9)),
        ("noimage.txt", b"x"),
        ("utf8.png", picture(9)),
        ("utf8.txt", b"\xff\xfe\xfa"),
        ("badjson.png", picture(9)),
        ("badjson.json", b"{"),
        ("twokeys.png", picture(9)),
        ("twokeys.json", b'{"caption": "one", "caption": "two"}'),
        ("two.png", picture(9)),
        ("two.jpg", picture(9)),
        ("two.txt", b"x"),
        ("gif.png", b"GIF89a" + bytes(100)),
        ("gif.txt", b"x"),
        ("blank.png", picture(9)),
        ("blank.txt", b" \n"),
        ("000001.png", picture(5)),
        ("000001.txt", b"again"),
        *pairs(range(3, 5)),
    ]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    documents, rejected = read("webdataset", tmp_path / "a.tar")
    assert sorted(documents) == [f"{n:06d}" for n in range(5)]
    assert documents["000001"].texts == ("caption 1",)
    assert reasons(rejected) == [
        ("a.tar:corrupt", "image data is broken"),
        ("a.tar:utf8", "invalid UTF-8"),
        ("a.tar:badjson", "broken JSON"),
        ("a.tar:twokeys", "a key stands twice in one JSON object"),
        ("a.tar:two", "several files of one kind under one key"),
        ("a.tar:gif", "image is not PNG, JPEG, WEBP"),
        ("a.tar:blank", "missing caption"),
        ("a.tar:000001", "duplicate key"),
        # What misses its other half waits for it until the end.
        ("a.tar:nocaption", "missing caption"),
        ("a.tar:noimage", "missing image"),
    ]
    assert {record.source for record in rejected} == {"mine"}


def test_webdataset_links_and_strange_names_do_no_harm(tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(picture(1))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in (
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("device.png", tarfile.CHRTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(outside)
            tar.addfile(member)
        for name in ("../../up.png", "/root.png", "x" * 300 + ".png", "bad\udcff.png"):
            for ending, data in (("png", picture(2)), ("txt", b"x")):
                member = tarfile.TarInfo(name.removesuffix("png") + ending)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "a.tar").write_bytes(buffer.getvalue())
    before = sorted(tmp_path.rglob("*"))
    documents, rejected = read("webdataset", shards)
    assert sorted(tmp_path.rglob("*")) == before
    link = "member is a link, and what it stands for is no file of the tar"
    assert [record.reason for record in rejected] == ["member is no plain file, or over 256 MiB", link, link]
    assert len(documents) == 4 and "bad\\udcff" in documents
    assert all(record.position.encode() for record in rejected)


@pytest.mark.parametrize("cut", ["record boundary", "header", "payload", "padding", "one zero block"])
def test_every_cut_of_a_tar_is_refused(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "a.tar"
    members = pairs(range(6))
    whole = tar_bytes(members)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        fourth, last = tar.getmembers()[6], tar.getmembers()[-1]
    end = last.offset_data + 512
    at = {
        "record boundary": fourth.offset,
        "header": fourth.offset + 100,
        "payload": fourth.offset_data + 50,
        "padding": fourth.offset_data + fourth.size + 1,
        "one zero block": end + 512,
    }[cut]
    path.write_bytes(whole[:at])
    with pytest.raises(BadInput, match=r"a\.tar"):
        read("webdataset", path)


def test_a_damaged_header_is_refused_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    whole = tar_bytes(pairs(range(4)))
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        headers = [member.offset for member in tar.getmembers()]
    for offset in headers:
        path.write_bytes(whole[: offset + 5] + bytes([whole[offset + 5] ^ 4]) + whole[offset + 6 :])
        with pytest.raises(BadInput, match=r"a\.tar"):
            read("webdataset", path)


def test_compressed_tars_are_read_and_their_cuts_refused(tmp_path: Path) -> None:
    packed = gzip.compress(tar_bytes(pairs(range(4))))
    for name in ("a.tar.gz", "b.tgz"):
        (tmp_path / name).write_bytes(packed)
        documents, _ = read("webdataset", tmp_path / name)
        assert len(documents) == 4
        (tmp_path / name).write_bytes(packed[:-20])
        with pytest.raises(BadInput, match=name):
            read("webdataset", tmp_path / name)


def test_tars_stuck_together_are_refused_not_halved(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes(pairs(range(2))) + tar_bytes(pairs(range(2, 4))))
    with pytest.raises(BadInput, match=r"a\.tar goes on after its end mark"):
        read("webdataset", tmp_path / "a.tar")


def test_what_img2dataset_writes(tmp_path: Path) -> None:
    """Its tars hold key.jpg, key.txt and key.json; beside each tar lie a Parquet table and the counts."""
    for shard in range(2):
        members = []
        for number in range(3):
            key = f"{shard:05d}{number:04d}"
            facts = {"caption": f"caption {key}", "url": "https://example.org/x.jpg", "key": key, "status": "success"}
            members += [(f"{key}.jpg", picture(number)), (f"{key}.json", json.dumps(facts).encode())]
            members += [(f"{key}.txt", facts["caption"].encode())]
        (tmp_path / f"{shard:05d}.tar").write_bytes(tar_bytes(members))
        (tmp_path / f"{shard:05d}_stats.json").write_text(json.dumps({"count": 3, "successes": 3}))
        write_parquet(tmp_path / f"{shard:05d}.parquet", key=["a"], caption=["b"])
    for path in (tmp_path, tmp_path / "0000*"):
        documents, rejected = read("webdataset", path)
        assert rejected == []
        assert {key: document.texts for key, document in documents.items()} == {
            f"{shard:05d}{number:04d}": (f"caption {shard:05d}{number:04d}",) for shard in range(2) for number in range(3)
        }


def test_several_captions_in_json_and_in_lines(tmp_path: Path) -> None:
    members = [
        ("list.png", picture(0)),
        ("list.json", json.dumps({"caption": ["one", " ", "two", 3]}).encode()),
        ("lines.png", picture(1)),
        ("lines.txt", b"first\r\n\nsecond\n\xff"),
    ]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    documents, rejected = read("webdataset", tmp_path / "a.tar", caption_per_line=True)
    assert {key: document.texts for key, document in documents.items()} == {
        "list#0": ("one",),
        "list#2": ("two",),
        "lines#0": ("first",),
        "lines#1": ("second",),
    }
    assert reasons(rejected) == [
        ("a.tar:list caption 1", "missing caption"),
        ("a.tar:list caption 3", "caption is not text"),
        ("a.tar:lines caption 2", "invalid UTF-8"),
    ]
    documents, rejected = read("webdataset", tmp_path / "a.tar", captions="one", caption_per_line=True)
    assert sorted(documents) == ["lines", "list"]
    assert rejected == []
    assert documents["list"].texts[0] in ("one", "two") and documents["lines"].texts[0] in ("first", "second")


def one_colour(number: int) -> bytes:
    return encode_png(np.full((16, 16, 3), number, np.uint8))


def numbered(names: list[tuple[str, int]], ending: str = "png") -> list[tuple[str, bytes]]:
    return [(f"{key}.{ending}", one_colour(n) if ending == "png" else f"caption {n}".encode()) for key, n in names]


def read_numbers(path: Path) -> dict[str, tuple[int, str]]:
    """Key -> the number that the picture shows, and the caption."""
    documents, rejected = read("webdataset", path)
    assert rejected == []
    return {key: (int(decode_png(found.images[0])[0, 0, 0]), found.texts[0]) for key, found in documents.items()}


@pytest.mark.parametrize("window", [1, 5, 64])
def test_every_picture_has_the_caption_of_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    """Whatever the order in the tar, dots in the names, and how many parts are looked at together."""
    monkeypatch.setattr(webdataset, "WINDOW_PARTS", window)
    names = [(key, number) for number, key in enumerate(f"{stem}{n:02d}" for n in range(20) for stem in ("v1.", "a", "b.c."))]
    members = numbered(names) + numbered(names, "txt")
    expected = {key: (number, f"caption {number}") for key, number in names}
    for seed in range(4):
        print(f"seed {seed}")
        random.Random(seed).shuffle(members)
        (tmp_path / "a.tar").write_bytes(tar_bytes(members))
        assert read_numbers(tmp_path / "a.tar") == expected
    (tmp_path / "a.tar").write_bytes(tar_bytes(sorted(members)))
    assert read_numbers(tmp_path / "a.tar") == expected
    # Names with a dot alone, of which no window's last record may be taken for half a record.
    (tmp_path / "a.tar").write_bytes(tar_bytes(sorted(member for member in members if member[0].startswith("v1."))))
    assert read_numbers(tmp_path / "a.tar") == {key: value for key, value in expected.items() if key.startswith("v1.")}


def test_parts_of_a_sample_as_webdataset_names_them(tmp_path: Path) -> None:
    members = [
        *(("0.png", one_colour(0)), ("0.seg.png", one_colour(90)), ("0.txt", b"zero")),
        *(("1.depth.png", one_colour(91)), ("1.png", one_colour(1)), ("1.caption.txt", b"one")),
        *(("2.png", one_colour(2)), ("2.v2.png", one_colour(3)), ("2.v2.txt", b"three"), ("2.txt", b"two")),
        *(("3.a.png", one_colour(4)), ("3.b.txt", b"of another name")),
        *(("4.a.txt", b"which"), ("4.b.txt", b"of them"), ("4.png", one_colour(5))),
    ]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    documents, rejected = read("webdataset", tmp_path / "a.tar")
    assert {key: (int(decode_png(found.images[0])[0, 0, 0]), found.texts[0]) for key, found in documents.items()} == {
        "0": (0, "zero"),
        "1": (1, "one"),
        "2": (2, "two"),
        "2.v2": (3, "three"),
    }
    assert sorted(reasons(rejected)) == [
        ("a.tar:3.a", "missing caption"),
        ("a.tar:3.b", "missing image"),
        ("a.tar:4", VARIANTS),
    ]


def test_every_member_is_counted(tmp_path: Path) -> None:
    """As a part of a record, or as something else; a folder is none."""
    records = [*numbered([("a.1", 1), ("b", 2)]), *numbered([("a.1", 1), ("b", 2)], "txt")]
    others = ["b.cls", "b.seg.png", ".b.png", "b.txt~", "__meta__", "folder/._b.png", "no ending", "b.x.y.npy"]
    (tmp_path / "a.tar").write_bytes(tar_bytes([*records, *((name, b"x") for name in others)]))
    corpus, reading = corpus_of("webdataset", tmp_path / "a.tar"), Reading()
    with pytest.MonkeyPatch.context() as here:
        here.setenv("TRANSFUSION_NUM_DECODERS", "0")
        assert len(list(read_records(corpus, config_for(corpus), reading))) == 2
    assert reading.passed_over.numbers == {
        "files with another ending (.cls)": 1,
        "files with another ending (.npy)": 1,
        "files without an ending": 1,
        "hidden, temporary or system files": 4,
        "pictures or captions beside those of their record": 1,
    }
    assert reading.passed_over.examples["pictures or captions beside those of their record"] == [f"{tmp_path}/a.tar:b.seg.png"]


def test_links_inside_a_tar_are_what_they_stand_for(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (
            ("x/0.png", one_colour(0)),
            ("x/0.txt", b"shared"),
            ("1.png", one_colour(1)),
            ("2.png", one_colour(2)),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, kind, target in (
            ("1.txt", tarfile.LNKTYPE, "./x/0.txt"),
            ("2.txt", tarfile.SYMTYPE, "x/../x/0.txt"),
            ("x/3.png", tarfile.SYMTYPE, "../1.png"),
            ("x/3.txt", tarfile.LNKTYPE, "x/0.txt"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    expected = {"x/0": (0, "shared"), "1": (1, "shared"), "2": (2, "shared"), "x/3": (1, "shared")}
    assert read_numbers(tmp_path / "a.tar") == expected
    (tmp_path / "a.tar").write_bytes(gzip.compress(buffer.getvalue()))
    documents, rejected = read("webdataset", tmp_path / "a.tar")
    assert list(documents) == ["x/0"]
    assert [record.reason for record in rejected] == [webdataset.FAR_LINK] * 3
