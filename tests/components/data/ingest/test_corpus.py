"""A corpus is found wherever it lies, and its parameters do what they say."""

from __future__ import annotations

import gzip
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.config import CorpusFormat
from components.data.documents import ImageSegment, TextSegment
from components.data.ingest.corpus import read_records
from components.data.ingest.readers.corpus_files import Reading
from core.errors import BadInput
from core.png import decode_png
from tests.components.data.corpora import (
    config_for,
    corpus_of,
    pairs,
    picture,
    read,
    read_corpus,
    tar_bytes,
    write_images,
    write_jsonl,
)


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


# Parameters


def test_caption_first_share_is_the_corpus_s_own(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes(pairs(range(20))))
    for share, kinds in ((0.0, {ImageSegment}), (1.0, {TextSegment}), (0.5, {ImageSegment, TextSegment})):
        documents, _ = read("webdataset", tmp_path / "a.tar", caption_first_share=share)
        assert {type(document.segments[0]) for document in documents.values()} == kinds
        assert all(len(document.images) == len(document.texts) == 1 for document in documents.values())


def test_captions_have_a_limit_and_texts_have_none(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([("a.png", picture(0)), ("a.txt", b"x" * 100), *pairs(range(1))]))
    documents, rejected = read("webdataset", tmp_path / "a.tar", max_caption_bytes=50)
    assert list(documents) == ["000000"] and [record.reason for record in rejected] == ["caption is too long"]
    write_jsonl(tmp_path / "a.jsonl", [{"text": "x" * 100}])
    assert len(read("jsonl", tmp_path / "a.jsonl", max_caption_bytes=50)[0]) == 1


def test_decoding_processes_give_the_same_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [*pairs(range(30)), ("bad.png", b"junk"), ("bad.txt", b"x"), ("none.txt", b"x")]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    corpus = corpus_of("webdataset", tmp_path / "a.tar")
    found = []
    for number in ("0", "2"):
        monkeypatch.setenv("TRANSFUSION_NUM_DECODERS", number)
        found.append(list(read_corpus(corpus, config_for(corpus))))
    assert found[0] == found[1] and len(found[0]) == 32
    monkeypatch.setenv("TRANSFUSION_NUM_DECODERS", "many")
    with pytest.raises(BadInput, match="TRANSFUSION_NUM_DECODERS='many'"):
        list(read_corpus(corpus, config_for(corpus)))


def test_reading_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFUSION_NUM_DECODERS", "0")
    for name in ("a", "b"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": f"{n} {'x' * 500}"} for n in range(2000)])
    with gzip.open(tmp_path / "c.jsonl.gz", "wb") as file:
        file.write((tmp_path / "a.jsonl").read_bytes())
    corpus, reading = corpus_of("jsonl", tmp_path), Reading()
    shares = [reading.share() for _ in read_records(corpus, config_for(corpus), reading)]
    assert len(shares) == reading.num_records == 6000
    assert shares == sorted(shares) and shares[1000] < 0.5 < shares[-1] <= 1
    assert 0.3 < shares[2000] < 0.7
    pq.write_table(pa.table({"text": [f"record {n}" for n in range(1000)]}), tmp_path / "a.parquet")
    corpus, reading = corpus_of("parquet", tmp_path), Reading()
    shares = [reading.share() for _ in read_records(corpus, config_for(corpus), reading)]
    assert shares == sorted(shares) and shares[0] < 0.1 and 0.4 < shares[500] < 0.6 and shares[-1] == 1
    write_images(tmp_path / "photos", [f"{n}.png" for n in range(40)])
    corpus, reading = corpus_of("image_folder", tmp_path / "photos"), Reading()
    shares = [reading.share() for _ in read_records(corpus, config_for(corpus), reading)]
    assert shares == sorted(shares) and shares[0] < 0.6 and shares[-1] == 1
