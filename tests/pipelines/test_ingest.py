"""Does ingest turn corpora into documents, the same bytes each time, and stop on what cannot be used?"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.data.documents import SPLITS, Document, read_documents
from components.data.images import decode_png, encode_png
from components.data.tokenizer import load_tokenizer, token_stream
from components.runtime.failure import BadInput, GateRefused
from components.runtime.files import read_json, read_manifest
from pipelines import ingest, paths
from pipelines.params import Params, load

PARAMS = Path(__file__).parents[2] / "params.yaml"
SMALL = (
    "ingest.scenes={num_train: 40, num_validation: 6, num_test: 14, num_kept_out_pairs: 3}",
    "ingest.prose={max_train_bytes: 30000, max_held_out_bytes: 4000, passage_bytes: 400}",
    "ingest.documents_per_file=16",
    "ingest.vocab_size=400",
)


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
    assert manifest["kept_out_pairs"] == report["kept_out_pairs"]
    assert len(report["kept_out_pairs"]) == 3
    assert manifest["tokenizer_sha256"] == hashlib.sha256((one / "data/tokenizer/tokenizer.json").read_bytes()).hexdigest()
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
        f"ingest.corpora=[{{name: own, format: jsonl, path: '{tmp_path}/a.jsonl'}}]",
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
    import numpy as np

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(num_good + num_bad):
            pixels = np.full((20, 40, 3), number, np.uint8)
            data = encode_png(pixels) if number < num_good else b"broken"
            for name, content in ((f"{number:04d}.png", data), (f"{number:04d}.txt", f"a picture {number}".encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_own_pictures_with_some_bad_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(shard(40, 2))
    own = f"ingest.corpora=[{{name: web, format: webdataset, path: '{tmp_path}/a.tar'}}]"
    run(tmp_path / "one", monkeypatch, own, "ingest.max_quarantined_share=0.05")
    documents = documents_of(tmp_path / "one")
    assert len(documents) == 40
    assert {decode_png(document.images[0]).shape for document in documents} == {(32, 32, 3)}
    report = read_json(tmp_path / "one/reports/ingest/counts.json")
    assert report["dropped"] == {"web": {"image is not PNG, JPEG, WEBP": 2}}
    assert report["kept_out_pairs"] == []
    lines = [json.loads(line) for line in (tmp_path / "one/data/quarantine/ingest.jsonl").read_text().splitlines()]
    assert [line["position"].rpartition(":")[2] for line in lines] == ["0040", "0041"]
    requests = [json.loads(line) for line in (tmp_path / "one/data/requests/requests.jsonl").read_text().splitlines()]
    assert {line["task"] for line in requests} == {"text_to_image", "image_to_text"}
    assert all(line["prompt"].startswith("a picture") for line in requests if line["task"] == "text_to_image")


def test_too_many_bad_rows_refuse_and_list_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(shard(40, 3))
    own = f"ingest.corpora=[{{name: web, format: webdataset, path: '{tmp_path}/a.tar'}}]"
    with pytest.raises(GateRefused, match=r"3 of 43 rows of the corpus 'web' .* image is not PNG, JPEG, WEBP \(3\)"):
        run(tmp_path / "one", monkeypatch, own, "ingest.max_quarantined_share=0.05")
    assert len((tmp_path / "one/data/quarantine/ingest.jsonl").read_text().splitlines()) == 3
    # What was written has no manifest, so no reader takes it for documents.
    with pytest.raises(BadInput, match="manifest"):
        read_manifest(tmp_path / "one" / paths.DOCUMENTS, kind="documents")


def test_an_empty_corpus_stops_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(BadInput, match="'own' is empty"):
        run(tmp_path / "one", monkeypatch, f"ingest.corpora=[{{name: own, format: jsonl, path: '{tmp_path}/a.jsonl'}}]")


def test_a_mistyped_path_leaves_earlier_documents_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "hello"}\n' * 5)
    own = "ingest.corpora=[{{name: own, format: jsonl, path: '{}'}}]"
    run(tmp_path / "one", monkeypatch, own.format(tmp_path / "a.jsonl"))
    before = digests(tmp_path / "one")
    with pytest.raises(BadInput, match=r"has no \.jsonl"):
        run(tmp_path / "one", monkeypatch, own.format(tmp_path / "b.jsonl"))
    assert digests(tmp_path / "one") == before
