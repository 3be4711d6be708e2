"""Ingest turns corpora into documents, the same bytes each time, and stops on what cannot be used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.data.documents import SPLITS, Document, read_documents
from components.data.token_stream import token_stream
from components.runtime.ancestors import content_digest
from core.errors import BadInput, GateRefused
from core.files import read_json
from core.manifest import read_manifest
from core.png import decode_png, encode_png
from core.tokenizer import load_tokenizer
from pipelines import ingest, paths
from pipelines.params import load
from pipelines.sections import Params
from tests.components.data.corpora import tar_bytes

PARAMS = Path(__file__).parents[2] / "params.yaml"
SMALL = (
    "ingest.scenes={num_train: 40, num_validation: 6, num_test: 14, num_kept_out_pairs: 3}",
    "ingest.prose={max_train_bytes: 30000, max_held_out_bytes: 4000, passage_bytes: 400}",
    "ingest.documents_per_file=16",
    "ingest.vocab_size=400",
)


def corpora(*chosen: dict[str, Any]) -> str:
    """The override that makes these the corpora. JSON is YAML."""
    return f"ingest.corpora={json.dumps(chosen)}"


def params(*overrides: str) -> Params:
    return load(PARAMS, (*SMALL, *overrides))


def run(where: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    where.mkdir(exist_ok=True)
    monkeypatch.chdir(where)
    ingest.main(params(*overrides))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def documents_of(where: Path) -> list[Document]:
    return [document for split in SPLITS for document in read_documents(where / paths.DOCUMENTS, split)]


def test_demonstration_corpora_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        run(tmp_path / name, monkeypatch)
    one = tmp_path / "one"
    assert digests(one) == digests(tmp_path / "two")
    manifest = read_manifest(one / paths.DOCUMENTS, kind="documents")
    documents = documents_of(one)
    tokenizer = load_tokenizer(one / paths.TOKENIZER)
    table = pq.read_table(one / paths.DOCUMENTS / "table.parquet").to_pylist()
    report = read_json(one / "reports/ingest/counts.json")

    assert (one / "data/quarantine/ingest.jsonl").read_bytes() == b""
    assert manifest["weights"] == {corpus.name: corpus.weight for corpus in params().ingest.corpora}
    for name, counts in report["corpora"].items():
        of_corpus = sum(document.source == name for document in documents)
        assert (counts["candidates"], counts["documents"], counts["rejected"]) == (of_corpus, of_corpus, 0)
    assert manifest["kept_out_pairs"] == report["kept_out_pairs"]
    assert len(report["kept_out_pairs"]) == 3
    learnt = read_manifest(one / "data/tokenizer", kind="tokenizer")
    assert manifest["ancestors"] == {"tokenizer": content_digest(learnt)}
    assert sum(manifest["num_documents"].values()) == len(documents) == len(table)
    assert [row["key"] for row in table] == [f"{document.source}/{document.key}" for document in documents]
    for row, document in zip(table, documents, strict=True):
        assert row["num_tokens"] == len(token_stream(tokenizer, document).ids)
        assert row["split"] == document.split
        assert row["num_images"] == len(document.images)
        assert row["width_px"] == row["height_px"] == (32 if document.images else None)
    for split in SPLITS:
        for source, entry in report["splits"][split].items():
            rows = [row for row in table if (row["split"], row["source"]) == (split, source)]
            assert entry["documents"] == len(rows)
            assert entry["tokens"] == sum(row["num_tokens"] for row in rows)
            assert entry["text_bytes"] == sum(row["num_bytes"] for row in rows)
            assert entry["longest_tokens"] == max(row["num_tokens"] for row in rows)
    read_manifest(one / paths.REQUESTS, kind="requests")


def test_the_tokenizer_has_seen_training_text_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps({"id": str(n), "text": f"document {n}"}) for n in range(60)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    own = (
        corpora({"name": "own", "format": "jsonl", "path": f"{tmp_path}/a.jsonl"}),
        "ingest.split_shares={validation: 0.2, test: 0.2}",
    )
    run(tmp_path / "one", monkeypatch, *own)
    held_out = {document.key for document in documents_of(tmp_path / "one") if document.split != "train"}
    assert 10 < len(held_out) < 40
    # Held-out texts now say one new word over and over; a tokenizer that saw it would merge it.
    strange = [json.dumps({"id": str(n), "text": "qzxw " * 50 if str(n) in held_out else f"document {n}"}) for n in range(60)]
    (tmp_path / "a.jsonl").write_text("\n".join(strange))
    run(tmp_path / "two", monkeypatch, *own)
    assert digests(tmp_path / "one/data/tokenizer") == digests(tmp_path / "two/data/tokenizer")
    assert len(load_tokenizer(tmp_path / "two/data/tokenizer").encode("qzxw")) == 4


def shard(num_good: int, num_bad: int) -> bytes:
    members = []
    for number in range(num_good + num_bad):
        data = encode_png(np.full((20, 40, 3), number, np.uint8)) if number < num_good else b"broken"
        members += [(f"{number:04d}.png", data), (f"{number:04d}.txt", f"a picture {number}".encode())]
    return tar_bytes(members)


def test_own_pictures_with_some_bad_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(shard(40, 2))
    own = corpora({"name": "web", "format": "webdataset", "path": f"{tmp_path}/a.tar"})
    run(tmp_path / "one", monkeypatch, own, "ingest.max_rejected_share=0.05")
    documents = documents_of(tmp_path / "one")
    assert len(documents) == 40
    assert {decode_png(document.images[0]).shape for document in documents} == {(32, 32, 3)}
    report = read_json(tmp_path / "one/reports/ingest/counts.json")
    web = report["corpora"]["web"]
    assert web["reasons"] == {"image is not PNG, JPEG, WEBP": 2}
    assert (web["records"], web["candidates"], web["documents"], web["rejected"]) == (42, 42, 40, 2)
    assert report["kept_out_pairs"] == []
    lines = [json.loads(line) for line in (tmp_path / "one/data/quarantine/ingest.jsonl").read_text().splitlines()]
    assert [line["position"].rpartition(":")[2] for line in lines] == ["0040", "0041"]
    requests = [json.loads(line) for line in (tmp_path / "one/data/requests/requests.jsonl").read_text().splitlines()]
    assert {line["task"] for line in requests} == {"text_to_image", "image_to_text"}
    assert all(line["prompt"].startswith("a picture") for line in requests if line["task"] == "text_to_image")


def test_too_many_bad_rows_refuse_and_list_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(shard(40, 3))
    own = corpora({"name": "web", "format": "webdataset", "path": f"{tmp_path}/a.tar"})
    with pytest.raises(GateRefused, match=r"3 of 43 records of the corpus 'web' .* image is not PNG, JPEG, WEBP \(3\)"):
        run(tmp_path / "one", monkeypatch, own, "ingest.max_rejected_share=0.05")
    assert len((tmp_path / "one/data/quarantine/ingest.jsonl").read_text().splitlines()) == 3
    # What was written has no manifest, so no reader takes it for documents.
    with pytest.raises(BadInput, match="manifest"):
        read_manifest(tmp_path / "one" / paths.DOCUMENTS, kind="documents")


def test_an_empty_corpus_stops_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(BadInput, match="'own' is empty"):
        run(tmp_path / "one", monkeypatch, corpora({"name": "own", "format": "jsonl", "path": f"{tmp_path}/a.jsonl"}))


def test_a_mistyped_path_leaves_earlier_documents_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "hello"}\n' * 5)
    own = {"name": "own", "format": "jsonl"}
    run(tmp_path / "one", monkeypatch, corpora(own | {"path": f"{tmp_path}/a.jsonl"}))
    before = digests(tmp_path / "one")
    with pytest.raises(BadInput, match=r"has no \.jsonl"):
        run(tmp_path / "one", monkeypatch, corpora(own | {"path": f"{tmp_path}/b.jsonl"}))
    assert digests(tmp_path / "one") == before


def test_every_row_is_counted_where_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"text": f"line {n % 30}"} for n in range(40)] + [{"other": "x"}] * 2 + ["no object"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": f"Line  {n}"}) + "\n" for n in range(25, 60)))
    own = corpora(
        {"name": "a", "format": "jsonl", "path": f"{tmp_path}/a.jsonl", "weight": 3.0},
        {"name": "b", "format": "jsonl", "path": f"{tmp_path}/b.jsonl", "max_documents": 12},
    )
    lenient = "ingest.max_rejected_share=0.1"
    run(tmp_path / "counted", monkeypatch, own, lenient)
    said = capsys.readouterr().out
    assert "a: duplicates: exact (10)" in said and "notes" not in said
    run(tmp_path / "dropped", monkeypatch, own, lenient, "ingest.duplicates.exact=drop")
    counted, dropped = (read_json(tmp_path / name / "reports/ingest/counts.json")["corpora"] for name in ("counted", "dropped"))
    assert {name: counts["duplicates_dropped"] for name, counts in counted.items()} == {"a": 0, "b": 0}
    assert {name: counts["duplicates"]["exact"] for name, counts in counted.items()} == {"a": 10, "b": 5}
    expected = {
        "counted": {"a": (43, 40, 3, 0), "b": (12, 12, 0, 0)},
        "dropped": {"a": (43, 30, 3, 10), "b": (17, 12, 0, 5)},
    }
    for name, report in (("counted", counted), ("dropped", dropped)):
        for source, numbers in expected[name].items():
            counts = report[source]
            assert numbers == tuple(counts[key] for key in ("candidates", "documents", "rejected", "duplicates_dropped"))
            assert counts["candidates"] == counts["documents"] + counts["rejected"] + counts["duplicates_dropped"]
            of_corpus = [document for document in documents_of(tmp_path / name) if document.source == source]
            assert len(of_corpus) == counts["documents"]
        assert report["b"]["stopped_at_max_documents"] and not report["a"]["stopped_at_max_documents"]
    manifest = read_manifest(tmp_path / "counted" / paths.DOCUMENTS, kind="documents")
    assert manifest["weights"] == {"a": 3.0, "b": 1.0}


def test_a_cap_in_the_midst_of_an_image_s_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [
        ("0.png", encode_png(np.zeros((16, 16, 3), np.uint8))),
        ("0.json", json.dumps({"caption": list("abcde")}).encode()),
    ]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    own = corpora({"name": "web", "format": "webdataset", "path": f"{tmp_path}/a.tar", "max_documents": 3})
    run(tmp_path / "one", monkeypatch, own)
    assert sorted(document.texts[0] for document in documents_of(tmp_path / "one")) == ["a", "b", "c"]
    counts = read_json(tmp_path / "one/reports/ingest/counts.json")["corpora"]["web"]
    assert (counts["records"], counts["candidates"], counts["documents"]) == (1, 3, 3)
