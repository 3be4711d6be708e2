"""The gates stop the pipeline with one sentence, and encode leaves out what they set aside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.data.documents import SPLITS, Document, ImageSegment, TextSegment, read_documents, write_documents
from components.data.documents_table import document_row, write_table
from components.data.encode.encoding import PartEncoder, plan
from components.data.loader import PackedRows
from components.data.quarantine import read_keys
from components.data.shards import open_shard, shard_paths
from core.files import read_json
from core.manifest import read_manifest, write_manifest
from core.png import encode_png
from core.tokenizer import TextTokenizer, train_tokenizer
from model.latents.autoencoder import Autoencoder
from pipelines import encode, stage, validate
from pipelines.params import load
from pipelines.sections import Params

OVERRIDES = (
    *(
        "validate.documents.min_documents=10",
        "validate.documents.min_images=5",
        "validate.documents.max_quarantined_share=0.03",
    ),
    *("validate.latents.min_rows=5", "validate.latents.max_std=30", "validate.latents.max_abs_mean=30"),
    *(
        "validate.latents.min_std=0",
        "validate.latents.min_packing_fill=0.5",
        "encode.row_length=64",
        "encode.batch_size=8",
        "train.model.patch_side=2",
    ),
)


def make_documents(split: str, number: int) -> list[Document]:
    generator = np.random.default_rng(len(split))
    documents = []
    for index in range(number):
        picture = ImageSegment(encode_png(generator.integers(0, 256, (16, 16, 3), np.uint8)))
        segments = (TextSegment(f"picture {index} of {split}"), picture)
        documents.append(Document(key=f"{split}-{index}", source="made", segments=segments, split=split))
    return documents


def write_inputs(make: Callable[[str], list[Document]]) -> None:
    """data/documents, data/tokenizer and artifacts/autoencoder in the working directory, as their stages write them."""
    documents = Path("data/documents")
    for split in SPLITS:
        write_documents(documents, split, make(split), documents_per_file=20)
    tokenizer: TextTokenizer = train_tokenizer((text for doc in make("train") for text in doc.texts), 300)
    tokenizer.save(Path("data/tokenizer"))
    write_table(documents, (document_row(doc, tokenizer) for split in SPLITS for doc in read_documents(documents, split)))
    write_manifest(documents, kind="documents", preparation={"side_px": 16, "background": "black", "animated": "first_frame"})
    torch.manual_seed(0)
    autoencoder = Autoencoder.create(
        block_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_groups=4, sample_side_px=16
    )
    autoencoder.save_pretrained(Path("artifacts/autoencoder"))
    write_manifest(Path("artifacts/autoencoder"), kind="autoencoder")


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    loaded = load(Path("params.yaml"), OVERRIDES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "die_with_parent", lambda: None)  # the parent is the test run, which outlives the test
    return loaded


def run(name: str, work: Callable[[], Any]) -> int:
    return stage.execute(name, work)


def test_a_document_set_aside_by_a_gate_reaches_no_later_stage(params: Params, capfd: pytest.CaptureFixture[str]) -> None:
    def make(split: str) -> list[Document]:
        made = make_documents(split, 40 if split == "train" else 12)
        if split == "train":
            blank = ImageSegment(encode_png(np.zeros((16, 16, 3), np.uint8)))
            made[7] = Document(key="train-7", source="made", segments=(TextSegment("nothing"), blank), split=split)
        return made

    write_inputs(make)
    assert run("validate", lambda: validate.main(params, "documents")) == 0
    assert read_keys(Path("data/quarantine/documents.jsonl")) == {"made/train-7"}
    # What an earlier attempt finished is taken as it is; test_encoding.py starts the workers that do the rest.
    sources, settings, _, work = encode.inputs(params)
    encoder = PartEncoder(sources, settings)
    for item in plan(sources, work):
        encoder(item)
    Path(".work/encode/another").mkdir()
    assert run("encode", lambda: encode.main(params)) == 0
    report = read_json(Path("reports/encode/latents.json"))
    assert report["num_documents"] == {"train": 39, "validation": 12, "test": 12}
    ancestors = read_manifest(Path("data/latents"), kind="latents")["ancestors"]
    assert set(ancestors) == {"tokenizer", "documents", "documents verdict", "autoencoder"}
    assert [path.name for path in Path(".work/encode").iterdir()] == ["another"], "the work of other settings stays"
    assert "39 documents" in capfd.readouterr().out
    shards = [open_shard(path).latents for path in shard_paths(Path("data/latents"), "train")]
    values = np.concatenate(shards).astype(np.float64)
    np.testing.assert_allclose(report["latents"]["mean"], values.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(report["latents"]["std"], values.std((0, 2, 3)), atol=1e-5)

    # One document of the latents' table is made to stray: the gate sets it aside, the loader leaves it out.
    import pandas as pd

    table = pd.read_parquet("data/latents/table.parquet")
    table.loc[3, "latent_std_max"] = 99.0
    table.to_parquet("data/latents/table.parquet")
    facts = read_json(Path("data/latents/manifest.json"))
    for name in ("kind", "files", "format_version"):
        del facts[name]
    write_manifest(Path("data/latents"), kind="latents", **facts)
    lenient = load_with(params, max_quarantined_share=0.02)
    assert run("validate", lambda: validate.main(lenient, "latents")) == 0
    rows = PackedRows(Path("data/latents"), "train", Path("data/quarantine/latents.jsonl"))
    batch = rows.batch(range(rows.num_rows), step=0, seed=0, patch_side=2, caption_dropout=0, image_first_time_limit=1)
    assert rows.num_left_out == 1
    assert len(batch.latents[0].sample_index) == 38
    assert 3 not in batch.latents[0].sample_index

    assert run("validate", lambda: validate.main(params, "latents")) == 1
    assert "made/train-3 (latent_std_max = 99.0" in capfd.readouterr().err


def load_with(params: Params, *, max_quarantined_share: float) -> Params:
    import dataclasses

    latents = dataclasses.replace(params.validate.latents, max_quarantined_share=max_quarantined_share)
    return dataclasses.replace(params, validate=dataclasses.replace(params.validate, latents=latents))


def test_a_refused_gate_says_one_sentence_and_leaves_report_and_pages(
    params: Params, capfd: pytest.CaptureFixture[str]
) -> None:
    write_inputs(lambda split: make_documents(split, 0 if split == "test" else 12))
    assert run("validate", lambda: validate.main(params, "documents")) == 1
    said = capfd.readouterr().err.strip()
    assert "\n" not in said
    assert said.startswith(
        "validate: refused: documents-test: the number of documents in the test split, 0, is below validate."
    )
    report = Path("reports/validate/documents.json").read_bytes()
    assert read_json(Path("reports/validate/documents.json"))["passed"] is False
    assert Path("reports/validate/data_docs/documents/index.html").is_file()
    assert Path("data/quarantine/documents.jsonl").read_text() == ""
    assert run("validate", lambda: validate.main(params, "documents")) == 1
    assert Path("reports/validate/documents.json").read_bytes() == report


def test_a_flipped_byte_in_the_documents_stops_the_gate(params: Params, capfd: pytest.CaptureFixture[str]) -> None:
    write_inputs(lambda split: make_documents(split, 12))
    table = Path("data/documents/table.parquet")
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    assert run("validate", lambda: validate.main(params, "documents")) == 1
    assert "table.parquet does not have the bytes its manifest lists" in capfd.readouterr().err


def test_encode_needs_the_gates_verdict(params: Params, capfd: pytest.CaptureFixture[str]) -> None:
    write_inputs(lambda split: make_documents(split, 12))
    assert run("encode", lambda: encode.main(params)) == 1
    assert "data/quarantine/documents.jsonl is missing" in capfd.readouterr().err
