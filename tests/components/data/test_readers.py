"""Do the file formats users have become documents, with bad rows set aside one by one and bad files refused by name?"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.config import CorpusConfig, CorpusFormat, IngestConfig, ProseConfig, ScenesConfig, SplitShares
from components.data.documents import Document, ImageSegment, TextSegment
from components.data.images import decode_png, encode_png
from components.data.readers import read_corpus
from components.data.rejected import Rejected
from components.runtime.failure import BadInput

Members = Sequence[tuple[str, bytes]]


def picture(number: int) -> bytes:
    return encode_png(np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8))


def pairs(numbers: range) -> list[tuple[str, bytes]]:
    return [member for n in numbers for member in ((f"{n:06d}.png", picture(n)), (f"{n:06d}.txt", f"caption {n}".encode()))]


def tar_bytes(members: Members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def config_for(corpus: CorpusConfig, image_side_px: int = 16) -> IngestConfig:
    return IngestConfig(
        seed=3,
        image_side_px=image_side_px,
        caption_first_share=0.8,
        max_quarantined_share=0.5,
        documents_per_file=16,
        vocab_size=300,
        split_shares=SplitShares(validation=0.2, test=0.2),
        scenes=ScenesConfig(num_train=6, num_validation=2, num_test=2, num_kept_out_pairs=3),
        prose=ProseConfig(max_train_bytes=9000, max_held_out_bytes=3000, passage_bytes=300),
        corpora=(corpus,),
    )


def read(format: CorpusFormat, path: Path | str, image_side_px: int = 16) -> tuple[dict[str, Document], list[Rejected]]:
    corpus = CorpusConfig(name="mine", format=format, path=str(path))
    found = list(read_corpus(corpus, config_for(corpus, image_side_px)))
    documents = [document for document in found if isinstance(document, Document)]
    by_key = {document.key: document for document in documents}
    assert len(by_key) == len(documents)
    return by_key, [row for row in found if isinstance(row, Rejected)]


def reasons(rejected: list[Rejected]) -> list[tuple[str, str]]:
    return [(Path(row.position).name, row.reason) for row in rejected]


# WebDataset


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
    # "a.b.jpg" has the compound ending "b.jpg", which is not one of a caption or picture.
    assert rejected == []


def test_webdataset_bad_rows_are_rejected_alone(tmp_path: Path) -> None:
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
        ("a.tar:nocaption", "missing caption"),
        ("a.tar:noimage", "missing image"),
        ("a.tar:utf8", "invalid UTF-8"),
        ("a.tar:badjson", "broken JSON"),
        ("a.tar:two", "several files of one kind under one key"),
        ("a.tar:gif", "image is not PNG, JPEG, WEBP"),
        ("a.tar:blank", "missing caption"),
        ("a.tar:000001", "duplicate key"),
    ]
    assert {row.source for row in rejected} == {"mine"}


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
    assert {row.reason for row in rejected[:3]} == {"member is no plain file, or over 256 MiB"}
    assert [row.reason for row in rejected[3:]] == ["invalid UTF-8"]
    assert len(documents) == 3
    assert all(row.position.encode() for row in rejected)


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


# Parquet


def write_parquet(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=3)


IMAGE_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_parquet_with_an_image_struct(tmp_path: Path) -> None:
    images = pa.array([{"bytes": picture(n), "path": f"{n}.png"} for n in range(7)], IMAGE_STRUCT)
    write_parquet(
        tmp_path / "d/train-00000.parquet",
        image=images,
        caption=[f"caption {n}" for n in range(7)],
        label=list(range(7)),
    )
    documents, rejected = read("parquet", tmp_path / "d")
    assert rejected == []
    assert [document.texts for document in documents.values()] == [(f"caption {n}",) for n in range(7)]
    assert all(len(document.images) == 1 for document in documents.values())


def test_parquet_bad_rows_are_rejected_alone(tmp_path: Path) -> None:
    images = [picture(0), None, b"junk", picture(3), picture(4), picture(5)]
    texts = ["a", "b", "c", None, "e", "f"]
    structs = pa.array([{"bytes": data, "path": "p"} for data in images[:5]] + [None], IMAGE_STRUCT)
    write_parquet(tmp_path / "a.parquet", image=structs, text=texts, key=["k0", "k1", "k2", "k3", "k0", "k5"])
    documents, rejected = read("parquet", tmp_path / "a.parquet")
    assert sorted(documents) == ["k0"]
    assert reasons(rejected) == [
        ("a.parquet row 1", "missing image"),
        ("a.parquet row 2", "image is not PNG, JPEG, WEBP"),
        ("a.parquet row 3", "missing caption"),
        ("a.parquet row 4", "duplicate key"),
        ("a.parquet row 5", "missing image"),
    ]


def test_parquet_of_text_alone_and_of_plain_bytes(tmp_path: Path) -> None:
    write_parquet(tmp_path / "text.parquet", content=["one", "two", ""], id=[10, 11, 12])
    documents, rejected = read("parquet", tmp_path / "text.parquet")
    assert {key: document.segments for key, document in documents.items()} == {
        "10": (TextSegment("one"),),
        "11": (TextSegment("two"),),
    }
    assert reasons(rejected) == [("text.parquet row 2", "missing text")]
    write_parquet(tmp_path / "jpg.parquet", jpg=[picture(1)], caption=["x"])
    assert len(next(iter(read("parquet", tmp_path / "jpg.parquet")[0].values())).images) == 1


def test_parquet_that_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, words=["x"], number=[1])
    with pytest.raises(BadInput, match=r"a\.parquet has the columns words, number"):
        read("parquet", path)
    write_parquet(path, text=["x" * 100] * 50)
    whole = path.read_bytes()
    for broken in (whole[:-30], b"", b"PAR1junkPAR1"):
        path.write_bytes(broken)
        with pytest.raises(BadInput, match=r"a\.parquet"):
            read("parquet", path)


# JSONL


def test_jsonl_good_and_bad_lines(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"text": "first"}',
        b"",
        json.dumps({"content": "second \u00e9", "id": "same"}).encode() + b"\r",
        b'{"text": "cut',
        b'{"text": "bad \xff"}',
        b'{"text": "\\ud800 lone"}',
        b'["text"]',
        b'{"other": 1}',
        b'{"text": 5}',
        b'{"text": "dup", "id": "same"}',
        b"[" * 100_000,
        b'{"text": "<|boi|> last"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    documents, rejected = read("jsonl", tmp_path / "a.jsonl")
    assert [document.texts[0] for document in documents.values()] == ["first", "second \u00e9", "<|boi|> last"]
    assert reasons(rejected) == [
        ("a.jsonl line 4", "broken JSON"),
        ("a.jsonl line 5", "invalid UTF-8"),
        ("a.jsonl line 6", "invalid UTF-8"),
        ("a.jsonl line 7", "line is no JSON object"),
        ("a.jsonl line 8", "missing text"),
        ("a.jsonl line 9", "text is not text"),
        ("a.jsonl line 10", "duplicate key"),
        ("a.jsonl line 11", "broken JSON"),
    ]


def test_jsonl_line_too_long_to_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.data import read_tables

    monkeypatch.setattr(read_tables, "MAX_LINE_BYTES", 40)
    lines = ['{"text": "short"}', json.dumps({"text": "x" * 200}), '{"text": "after it"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    documents, rejected = read("jsonl", tmp_path / "a.jsonl")
    assert [document.texts[0] for document in documents.values()] == ["short", "after it"]
    assert reasons(rejected) == [("a.jsonl line 2", "line over 64 MiB")]


def test_jsonl_cut_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    packed = gzip.compress(b'{"text": "hello"}\n' * 1000)
    path.write_bytes(packed)
    assert len(read("jsonl", path)[0]) == 1000
    path.write_bytes(packed[:-12])
    with pytest.raises(BadInput, match=r"a\.jsonl\.gz"):
        read("jsonl", path)


# Where corpora are


@pytest.mark.parametrize("where", ["file", "folder", "glob", "file URL", "memory URL", "memory glob"])
def test_a_corpus_is_found_by_file_folder_glob_and_url(tmp_path: Path, where: str) -> None:
    memory = fsspec.filesystem("memory")
    for name, numbers in (("a.tar", range(3)), ("b.tar", range(3, 5))):
        data = tar_bytes(pairs(numbers))
        (tmp_path / name).write_bytes(data)
        memory.pipe(f"/corpus/{name}", data)
    (tmp_path / "notes.md").write_text("not a tar")
    path, expected = {
        "file": (f"{tmp_path}/a.tar", 3),
        "folder": (str(tmp_path), 5),
        "glob": (f"{tmp_path}/[ab].tar", 5),
        "file URL": (f"file://{tmp_path}/b.tar", 2),
        "memory URL": ("memory://corpus", 5),
        "memory glob": ("memory://corpus/*.tar", 5),
    }[where]
    assert len(read("webdataset", path)[0]) == expected


@pytest.mark.parametrize("path", ["nowhere", "empty", "empty/*.tar", "memory://nothing/*", "unknown-protocol://x"])
def test_a_corpus_that_is_not_there_is_refused_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="'mine'") as caught:
        read("webdataset", path)
    assert path in str(caught.value)


@pytest.mark.parametrize(("format", "data"), [("webdataset", tar_bytes([])), ("jsonl", b"\n\n")])
def test_an_empty_corpus_is_refused(tmp_path: Path, format: CorpusFormat, data: bytes) -> None:
    path = tmp_path / {"webdataset": "a.tar", "jsonl": "a.jsonl"}[format]
    path.write_bytes(data)
    with pytest.raises(BadInput, match="'mine' is empty"):
        read(format, path)


def test_positions_hold_no_path_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text('{"text": "x"}\n{\n')
    documents, rejected = read("jsonl", "in")
    assert list(documents) == ["in/a.jsonl#1"]
    assert rejected[0].position == "in/a.jsonl line 2"


def test_built_in_corpora_come_through_the_same_door() -> None:
    scenes, rejected = read("digit_scenes", "", image_side_px=24)
    assert len(scenes) == 10
    assert rejected == []
    assert {decode_png(document.images[0]).shape for document in scenes.values()} == {(24, 24, 3)}
    assert all(
        isinstance(segment, (ImageSegment, TextSegment)) for document in scenes.values() for segment in document.segments
    )
    prose, _ = read("python_prose", "")
    assert {document.split for document in prose.values()} == {"train", "validation", "test"}
