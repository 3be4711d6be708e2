"""JSONL files become documents, with bad lines rejected one by one and cut files refused by name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from core.errors import BadInput
from tests.components.data.corpora import read, reasons, write_images, write_jsonl


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
        b'{"text": "one", "text": "two"}',
        b'{"text": "deep", "meta": {"a": 1, "a": 2}}',
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
        ("a.jsonl line 13", "a key stands twice in one JSON object"),
        ("a.jsonl line 14", "a key stands twice in one JSON object"),
    ]


def test_jsonl_line_too_long_to_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.data.ingest.readers import jsonl as read_jsonl

    monkeypatch.setattr(read_jsonl, "MAX_LINE_BYTES", 40)
    lines = ['{"text": "short"}', json.dumps({"text": "x" * 200}), '{"text": "after it"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    documents, rejected = read("jsonl", tmp_path / "a.jsonl")
    assert [document.texts[0] for document in documents.values()] == ["short", "after it"]
    assert reasons(rejected) == [("a.jsonl line 2", "line over 64 MiB")]


def test_jsonl_lines_that_end_in_returns_wherever_a_block_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.data.ingest.readers import jsonl as read_jsonl

    monkeypatch.setattr(read_jsonl, "MAX_LINE_BYTES", 40)
    for length in range(1, 14):
        lines = [json.dumps({"text": f"{number:02d}{'x' * length}"}) for number in range(30)]
        for end in ("\r", "\r\n", "\r\r\n"):
            (tmp_path / "a.jsonl").write_bytes(end.join([*lines, json.dumps({"text": "y" * 60}), "[]"]).encode())
            documents, rejected = read("jsonl", tmp_path / "a.jsonl")
            assert [document.texts[0] for document in documents.values()] == [json.loads(line)["text"] for line in lines]
            assert reasons(rejected) == [
                ("a.jsonl line 31", "line over 64 MiB"),
                ("a.jsonl line 32", "line is no JSON object"),
            ]


def test_jsonl_cut_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    packed = gzip.compress(b'{"text": "hello"}\n' * 1000)
    path.write_bytes(packed)
    assert len(read("jsonl", path)[0]) == 1000
    path.write_bytes(packed[:-12])
    with pytest.raises(BadInput, match=r"a\.jsonl\.gz"):
        read("jsonl", path)


@pytest.mark.parametrize("first_has_pictures", [True, False])
def test_files_with_and_without_pictures_are_no_one_corpus(tmp_path: Path, first_has_pictures: bool) -> None:
    write_images(tmp_path, ["0.png"])
    kinds = {True: [{"image": "0.png", "caption": "one"}], False: [{"text": "words alone"}]}
    write_jsonl(tmp_path / "a.jsonl", kinds[first_has_pictures])
    write_jsonl(tmp_path / "b.jsonl", kinds[not first_has_pictures])
    here, there = ("has no column of pictures", "has one") if first_has_pictures else ("has pictures", "has none")
    with pytest.raises(BadInput, match=rf"b\.jsonl {here}, and .*a\.jsonl {there}; list the two kinds as corpora of"):
        read("jsonl", tmp_path)
    documents, rejected = read("jsonl", tmp_path, images="none")
    assert len(documents) == 2 and not rejected


def test_a_file_whose_field_for_pictures_is_empty_goes_with_either_kind(tmp_path: Path) -> None:
    write_images(tmp_path, ["0.png"])
    write_jsonl(tmp_path / "a.jsonl", [{"image": None, "caption": "none yet"}])
    write_jsonl(tmp_path / "b.jsonl", [{"image": "0.png", "caption": "one"}])
    write_jsonl(tmp_path / "c.jsonl", [])
    documents, rejected = read("jsonl", tmp_path)
    assert [len(document.images) for document in documents.values()] == [0, 1] and not rejected
