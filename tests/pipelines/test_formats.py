"""A corpus in every format goes from files on disk to latents that a gate has checked and the loader opens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from components.data.documents import SPLITS, Document, read_documents
from components.data.encode.assembly import assemble
from components.data.encode.encoding import PartEncoder, plan
from components.data.loader import PackedRows
from core.files import fresh_folder, read_json
from core.manifest import write_manifest
from core.png import decode_png
from core.tokenizer import load_tokenizer
from model.latents.autoencoder import Autoencoder
from pipelines import encode, ingest, paths, validate
from pipelines.params import load
from pipelines.sections import Params
from tests.components.data.corpora import IMAGE_STRUCT, outline, picture, tar_bytes, write_images, write_jsonl

PARAMS = Path(__file__).parents[2] / "params.yaml"
NUMBER = 40
NAMES = [f"{number:03d}.png" for number in range(NUMBER)]

# Small, and with room: what is checked here is the way, not the demonstration's figures.
OVERRIDES = (
    *("ingest.image_side_px=16", "ingest.vocab_size=300", "ingest.documents_per_file=16"),
    *("ingest.split_shares={validation: 0.25, test: 0.25}", "ingest.max_rejected_share=0.1"),
    "ingest.scenes={num_train: 20, num_validation: 10, num_test: 10, num_kept_out_pairs: 3}",
    "ingest.prose={max_train_bytes: 9000, max_held_out_bytes: 3000, passage_bytes: 300}",
    *("validate.documents.min_documents=3", "validate.latents.min_rows=1", "validate.latents.min_packing_fill=0"),
    *("validate.latents.max_abs_mean=50", "validate.latents.min_std=0", "validate.latents.max_std=50"),
    *("encode.row_length=512", "encode.batch_size=8", "train.model.patch_side=2"),
)


class Corpus(NamedTuple):
    """fields: of CorpusConfig. num_bad: records that must be rejected. is_text: without any image."""

    fields: dict[str, Any]
    num_bad: int
    is_text: bool


def caption(folder: Path, number: int) -> str:
    return f"number {number} of {folder.name}"


def captions(folder: Path) -> list[str]:
    return [caption(folder, number) for number in range(NUMBER)]


def digit_scenes(folder: Path) -> Corpus:
    return Corpus({"format": "digit_scenes", "path": ""}, 0, False)


def python_prose(folder: Path) -> Corpus:
    return Corpus({"format": "python_prose", "path": ""}, 0, True)


def webdataset(folder: Path) -> Corpus:
    for shard in range(2):
        members = [(f"bad{shard}.png", b"junk"), (f"bad{shard}.txt", b"x")]
        for number in range(shard * NUMBER // 2, (shard + 1) * NUMBER // 2):
            members.append((f"{number:06d}.png", picture(number)))
            members.append((f"{number:06d}.txt", caption(folder, number).encode()))
        (folder / f"{shard:05d}.tar").write_bytes(tar_bytes(members))
        (folder / f"{shard:05d}_stats.json").write_text("{}")
    return Corpus({"format": "webdataset", "path": str(folder)}, 2, False)


def parquet(folder: Path) -> Corpus:
    images = pa.array([{"bytes": picture(n), "path": None} for n in range(NUMBER)] + [None], IMAGE_STRUCT)
    texts = [*captions(folder), "no image"]
    pq.write_table(pa.table({"image": images, "text": texts}), folder / "train-00000-of-00001.parquet")
    return Corpus({"format": "parquet", "path": str(folder)}, 1, False)


def parquet_text(folder: Path) -> Corpus:
    pq.write_table(pa.table({"content": [*captions(folder), ""]}), folder / "a.parquet")
    return Corpus({"format": "parquet", "path": str(folder / "*.parquet")}, 1, True)


def coco(folder: Path) -> Corpus:
    write_images(folder / "train", NAMES[: NUMBER // 2])
    images = [{"id": n, "file_name": NAMES[n]} for n in range(NUMBER // 2)]
    annotations = [{"id": n, "image_id": n % (NUMBER // 2), "caption": text} for n, text in enumerate(captions(folder))]
    annotations.append({"id": NUMBER, "image_id": 12345, "caption": "of nothing"})
    (folder / "captions.json").write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    return Corpus({"format": "coco", "path": f"{folder}/captions.json", "images": f"{folder}/train"}, 1, False)


def obelics(folder: Path) -> Corpus:
    write_images(folder / "images", NAMES)
    rows = [{"images": [None, name, None], "texts": ["before", None, caption(folder, n)]} for n, name in enumerate(NAMES)]
    rows.append({"images": ["https://example.org/a.png"], "texts": [None]})
    columns = {name: pa.array([row[name] for row in rows], pa.list_(pa.string())) for name in ("images", "texts")}
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return Corpus({"format": "obelics", "path": f"{folder}/a.parquet", "images": f"{folder}/images"}, 1, False)


def mmc4(folder: Path) -> Corpus:
    write_images(folder / "images", NAMES)
    rows: list[Any] = []
    for number, name in enumerate(NAMES):
        images = [{"image_name": name, "matched_text_index": 1}]
        rows.append({"text_list": ["First.", caption(folder, number)], "image_info": images})
    write_jsonl(folder / "docs.jsonl", [*rows, {"text_list": ["x"], "image_info": [{"image_name": "gone.png"}]}])
    return Corpus({"format": "mmc4", "path": f"{folder}/docs.jsonl", "images": f"{folder}/images"}, 1, False)


def jsonl(folder: Path) -> Corpus:
    write_jsonl(folder / "a.jsonl", [*({"text": text} for text in captions(folder)), {"text": None}])
    return Corpus({"format": "jsonl", "path": f"{folder}/a.jsonl"}, 1, True)


def image_folder(folder: Path) -> Corpus:
    write_images(folder, NAMES)
    for number, name in enumerate(NAMES):
        (folder / name).with_suffix(".txt").write_text(caption(folder, number))
    (folder / "alone.txt").write_text("x")
    return Corpus({"format": "image_folder", "path": str(folder)}, 1, False)


MAKERS = (digit_scenes, python_prose, webdataset, parquet, parquet_text, coco, obelics, mmc4, jsonl, image_folder)


class Stored(NamedTuple):
    """A document as the loader gives it. text: all of it. images: the sum over each image's latent."""

    text: str
    images: list[float]


class Way(NamedTuple):
    """What the stages left of all corpora. stored: of every split."""

    corpora: dict[str, Corpus]
    documents: list[Document]
    counts: dict[str, Any]
    rejected: list[dict[str, str]]
    stored: list[Stored]
    autoencoder: Autoencoder


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """All corpora at once through ingest, the gate of documents, encode and the gate of latents."""
    folder = tmp_path_factory.mktemp("formats")
    corpora = {make.__name__: make(fresh_folder(folder / make.__name__)) for make in MAKERS}
    listed = [{"name": name} | corpus.fields for name, corpus in corpora.items()]
    params = load(PARAMS, (*OVERRIDES, f"ingest.corpora={json.dumps(listed)}"))
    with pytest.MonkeyPatch.context() as here:
        here.chdir(fresh_folder(folder / "pipeline"))
        ingest.main(params)
        validate.main(params, "documents")
        autoencoder = _encode(params)
        validate.main(params, "latents")
        rejected = [json.loads(line) for line in (paths.QUARANTINE / "ingest.jsonl").read_text().splitlines()]
        documents = [document for split in SPLITS for document in read_documents(paths.DOCUMENTS, split)]
        stored = [document for split in SPLITS for document in _stored(split)]
        counts = read_json(paths.REPORTS / "ingest/counts.json")["corpora"]
        yield Way(corpora, documents, counts, rejected, stored, autoencoder)


@pytest.mark.parametrize("name", [make.__name__ for make in MAKERS])
def test_from_files_to_verified_latents(way: Way, name: str) -> None:
    corpus, counts = way.corpora[name], way.counts[name]
    documents = [document for document in way.documents if document.source == name]
    assert len(documents) == counts["documents"] == counts["candidates"] - corpus.num_bad
    assert len(documents) == NUMBER or name == "python_prose"
    assert sum(row["source"] == name for row in way.rejected) == counts["rejected"] == corpus.num_bad
    assert all(("<image>" in outline(document)) != corpus.is_text for document in documents)
    by_text = {found.text: found.images for found in way.stored}
    for document in documents:
        images = by_text["".join(document.texts)]
        assert len(images) == len(document.images)
        for data, found in zip(document.images, images, strict=True):
            pixels = torch.from_numpy(decode_png(data).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            with torch.inference_mode():
                expected = way.autoencoder.encode(pixels).sum()
            assert found == pytest.approx(float(expected), abs=0.05)


def test_nothing_else_is_stored(way: Way) -> None:
    assert len(way.stored) == len(way.documents)
    assert len({found.text for found in way.stored}) == len(way.documents)


def _encode(params: Params) -> Autoencoder:
    """What the stage does, without starting a cluster for a few pictures."""
    torch.manual_seed(0)
    autoencoder = Autoencoder.create(
        block_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_groups=4, sample_side_px=16
    )
    autoencoder.save_pretrained(paths.AUTOENCODER)
    write_manifest(paths.AUTOENCODER, kind="autoencoder")
    sources, settings, assembly, work = encode.inputs(params)
    encoder = PartEncoder(sources, settings)
    for item in plan(sources, work):
        encoder(item)
    assemble(sources, settings, assembly, work, paths.LATENTS)
    return Autoencoder.from_pretrained(paths.AUTOENCODER)


def _stored(split: str) -> Iterator[Stored]:
    """Every document of the split's packed rows; the rows are those that passed the gate."""
    rows = PackedRows(paths.LATENTS, split, paths.QUARANTINE / "latents.jsonl")
    tokenizer = load_tokenizer(paths.TOKENIZER)
    batch = rows.batch(range(rows.num_rows), step=0, seed=0, patch_side=2, caption_dropout=0.0, image_first_time_limit=1.0)
    ids, latents = batch.input_ids.flatten(), batch.latents[0]
    is_text = torch.ones(len(ids), dtype=torch.bool)
    is_text[latents.patch_positions] = False
    starts = torch.nonzero((batch.position_ids.flatten() == 0) & (ids == tokenizer.special_ids["bos"])).flatten().tolist()
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        of_document = (latents.patch_positions >= start) & (latents.patch_positions < end)
        images = latents.latent_index[of_document].unique().tolist()
        sums = [float(latents.patches[latents.latent_index == image].sum()) for image in images]
        yield Stored(tokenizer.decode(ids[start:end][is_text[start:end]].tolist()), sums)
