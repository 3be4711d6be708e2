"""The data benchmarks compare equal things, and the command writes what it promises."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import __main__ as data
from benchmarks.data import encode, loader, packing, readers
from benchmarks.data.corpus import Corpus, make_documents, write_corpus
from components.data.documents import read_documents
from components.data.shards import open_shard
from core.manifest import read_manifest
from core.png import decode_png


def test_the_command_ends_in_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data.json"

    def run(only: str) -> dict:
        assert data.main(["--quick", "--rounds", "1", "--only", only, "--out", str(out)]) == 0
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert last == json.loads(out.read_text())
        return last

    packing = run("packing")
    assert packing["packing_fill"] >= 0.98
    assert packing["packing_documents_per_s"] > 0
    both = run("loader")
    assert both["loader_ratio"] > 0
    assert both["packing"] == packing["packing"]


def test_figures_of_another_machine_are_not_kept_beside_new_ones() -> None:
    old = {"loader_ratio": 3.0, "machine": "a"}
    assert data.merged(old, {"packing_fill": 0.99, "machine": "a"}) == {**old, "packing_fill": 0.99}
    assert data.merged(old, {"packing_fill": 0.99, "machine": "b"}) == {"packing_fill": 0.99, "machine": "b"}


@pytest.mark.parametrize("mix", packing.MIXES)
def test_mixed_documents_have_16_to_4096_positions(mix: str) -> None:
    print("seed 3")
    lengths = packing.MIXES[mix](np.random.default_rng(3), 50_000)
    assert lengths.min() == 16 or mix == "captioned_images"
    assert lengths.min() >= 16
    assert 0.9 * 4096 < lengths.max() <= 4096


def test_both_loaders_read_the_same_documents(tmp_path: Path) -> None:
    from webdataset.compat import WebDataset

    size = loader.SIZES["demonstration"]._replace(documents=60)
    loader.write_latents(tmp_path / "latents", size, seed=5)
    read_manifest(tmp_path / "latents", kind="latents")
    tars = loader.write_tars(tmp_path / "latents", tmp_path / "tars", samples_per_tar=7)
    found = list(WebDataset(tars, shardshuffle=False).decode())  # type: ignore[arg-type]
    ours = []
    for path in sorted((tmp_path / "latents/train").glob("shard-*")):
        shard = open_shard(path)
        for index, (start, end) in enumerate(zip(shard.document_at[:-1], shard.document_at[1:], strict=True)):
            ours.append((shard.ids[start:end], shard.latents[shard.image_document == index]))
    assert len(found) == len(ours) == 60
    for sample, (ids, latents) in zip(found, ours, strict=True):
        assert np.array_equal(sample["ids.npy"], ids)
        assert len(latents) == ("latent.npy" in sample)
        assert len(latents) == 0 or np.array_equal(sample["latent.npy"], latents[0])


def test_a_rate_counts_what_was_read() -> None:
    assert 0 < loader.rate(iter(lambda: 5, None), 0.01) < float("inf")


def test_the_made_corpus_is_what_the_stage_reads(tmp_path: Path) -> None:
    corpus = Corpus(num_documents=40, side_px=20, documents_per_file=15, seed=8)
    write_corpus(tmp_path, corpus)
    read_manifest(tmp_path / "data/documents", kind="documents")
    documents = list(read_documents(tmp_path / "data/documents", "train"))
    assert documents == list(make_documents(40, "train", 20, 8))
    pictures = [decode_png(image) for document in documents for image in document.images]
    assert len(pictures) == 32
    assert {picture.shape for picture in pictures} == {(20, 20, 3)}
    assert encode.plain_loop(tmp_path / "artifacts/autoencoder", [documents[0].images[0]] * 3, num_threads=1) > 0


def test_both_formats_hold_the_rows_and_memory_is_that_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "ROWS_A_FILE", 7)
    paths = readers.write_files(tmp_path / "files", 30, seed=4)
    assert [len(list(folder.iterdir())) for folder in sorted((tmp_path / "files").iterdir())] == [5, 5]
    for name, path in paths.items():
        answer = readers.read(name, path, tmp_path / name)
        assert answer["documents"] == 30
        assert answer["seconds"] > 0
    assert readers._resident_bytes(os.getpid()) > 50 * 2**20
    assert readers._resident_bytes(2**22 + 7) == 0
