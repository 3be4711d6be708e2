"""Encoding keeps every token and picture, sets aside what cannot fit, and gives the same bytes however it is done."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from components.data.documents import SPLITS, Document, ImageSegment, TextSegment, document_name, read_part
from components.data.encode import encoding
from components.data.encode.assembly import Assembly, assemble
from components.data.encode.encoding import PartEncoder, Sources, encode_parts, plan, unfinished, work_digest
from components.data.encode.latents import EncodedPart, EncodeSettings, encode_part
from components.data.encode.packing import open_packing
from components.data.encode.variants import Views, views_of
from components.data.loader import PackedRows
from components.data.shards import check_shard, open_shard, shard_keys, shard_paths
from components.runtime.cluster import start_ray
from components.runtime.diagnosis import sentence_of
from core.errors import BadInput, WorkersFailed
from core.files import sha256
from core.manifest import read_manifest
from core.png import decode_png, encode_png
from core.tokenizer import load_tokenizer
from model.latents.autoencoder import Autoencoder, to_pixels

SETTINGS = EncodeSettings(batch_size=3, row_length=80, patch_side=2, image_side_px=16)
ASSEMBLY = Assembly(weights={}, text_to_image_ratio=0.0, shard_bytes=60_000, ancestors={"autoencoder": "a" * 64})
VIEWS = Views(flip=True, crops=2, crop_share=0.75)
CROWD = "made/train-crowd"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parts(encoded):
    sources: Sources = encoded.sources
    return load_tokenizer(sources.tokenizer), Autoencoder.from_pretrained(sources.autoencoder)


def encode(parts, documents: list[Document], settings: EncodeSettings = SETTINGS, quarantined: frozenset[str] = frozenset()):
    tokenizer, autoencoder = parts
    return encode_part(documents, tokenizer, autoencoder, settings, device=CPU, quarantined=quarantined)


def test_the_stored_stream_says_the_document(parts, encoded) -> None:
    tokenizer, _ = parts
    result = encode(parts, encoded.documents)
    check_shard(Path("here"), result.shard, boi=3)
    documents = {document_name(document.source, document.key): document for document in encoded.documents}
    said: dict[str, list[int]] = {}
    at = result.shard.document_at
    for name, start, end in zip(shard_keys(result.shard), at[:-1], at[1:], strict=True):
        base, _, number = name.partition("#")
        # A piece begins with the last token of the one before.
        said[base] = said.get(base, []) + result.shard.ids[start + (number not in ("", "0")) : end].tolist()
    assert set(documents) - set(said) == {CROWD}
    for name, ids in said.items():
        assert ids[0] == 1
        assert ids[-1] == 2
        assert ids.count(1) == ids.count(2) == 1
        assert tokenizer.decode(ids) == "".join(documents[name].texts)
        assert ids.count(3) == ids.count(4) == len(documents[name].images)


def test_latents_are_the_autoencoders_means_in_order(parts, encoded) -> None:
    _, autoencoder = parts
    result = encode(parts, encoded.documents)
    images = [data for document in encoded.documents[:-1] for data in document.images]
    assert len(result.shard.latents) == len(images) > 0
    pixels = torch.from_numpy(np.stack([decode_png(data) for data in images]))
    with torch.inference_mode():
        moments = autoencoder.encode_moments(to_pixels(pixels))
    np.testing.assert_allclose(result.shard.latents, moments.mean.numpy(), rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(result.shard.latent_std, moments.std.numpy(), rtol=2e-3, atol=2e-3)


def test_a_document_with_images_too_long_is_set_aside_and_text_is_cut(parts) -> None:
    picture = ImageSegment(encode_png(np.zeros((16, 16, 3), np.uint8)))
    long_text = TextSegment("z9" * 200)
    documents = [
        Document(key="gone", source="s", segments=(TextSegment("a"),), split="test"),
        Document(key="both", source="s", segments=(long_text, picture), split="test"),
        Document(key="text", source="s", segments=(long_text,), split="test"),
    ]
    result = encode(parts, documents, quarantined=frozenset({"s/gone"}))
    assert [entry["key"] for entry in result.set_aside] == ["s/both"]
    assert "over the 80 of a row" in result.set_aside[0]["reason"]
    lengths = np.diff(result.shard.document_at)
    assert shard_keys(result.shard) == [f"s/text#{number}" for number in range(len(lengths))]
    assert lengths.max() == 80
    assert lengths.sum() - (len(lengths) - 1) == len(parts[0].encode(long_text.text)) + 2


@pytest.mark.parametrize("num_tokens", [80, 81, 159, 160])
def test_pieces_fit_whatever_the_length(parts, num_tokens: int) -> None:
    # "z" and "9" never stand together in the training text, so each is a token.
    text = ("z9" * num_tokens)[: num_tokens - 2]
    result = encode(parts, [Document(key="t", source="s", segments=(TextSegment(text),), split="test")])
    lengths = np.diff(result.shard.document_at).tolist()
    assert sum(lengths) - (len(lengths) - 1) == num_tokens
    assert max(lengths) <= 80
    assert min(lengths) >= 2


def test_image_first_is_told_from_caption_first(parts) -> None:
    picture, words = ImageSegment(encode_png(np.zeros((16, 16, 3), np.uint8))), TextSegment("a red")
    cases = {
        "it": [True],
        "ti": [False],
        "i": [False],
        "iit": [True, True],
        "iti": [True, False],
        "titi": [False, False],
    }
    for layout, expected in cases.items():
        segments = tuple(picture if letter == "i" else words for letter in layout)
        result = encode(parts, [Document(key=layout, source="s", segments=segments, split="test")])
        assert result.shard.image_first.tolist() == expected, layout


def test_rows_measure_the_image_that_strays_furthest(parts, encoded) -> None:
    result = encode(parts, encoded.documents)
    number = shard_keys(result.shard).index("made/train-3")
    latents = result.shard.latents[result.shard.image_document == number].astype(np.float64)
    row = result.rows[number]
    means = latents.mean((1, 2, 3))
    assert row["num_images"] == 2
    assert row["num_positions"] == row["num_tokens"] + 2 * 16
    assert row["latent_finite"] is True
    assert row["latent_mean"] == pytest.approx(max(means, key=abs), abs=1e-4)
    assert row["latent_std_max"] == pytest.approx(latents.std((1, 2, 3)).max(), rel=1e-3)
    text_only = result.rows[shard_keys(result.shard).index("made/train-2#0")]
    assert text_only["latent_mean"] is None
    assert text_only["latent_finite"] is True


def test_latents_that_are_not_finite_are_told(parts) -> None:
    tokenizer, _ = parts
    torch.manual_seed(0)
    broken = Autoencoder.create(block_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_groups=4, sample_side_px=16)
    broken.set_normalisation(torch.zeros(4), torch.full((4,), 1e-12))
    picture = ImageSegment(encode_png(np.full((16, 16, 3), 9, np.uint8)))
    documents = [Document(key="x", source="s", segments=(picture,), split="test")]
    (row,) = encode_part(documents, tokenizer, broken.eval(), SETTINGS, device=CPU).rows
    assert row["latent_finite"] is False
    assert row["latent_mean"] is None


def test_images_that_the_autoencoder_or_the_patch_cannot_cut_are_refused(parts) -> None:
    with pytest.raises(BadInput, match=r"ingest\.image_side_px"):
        encode(parts, [], SETTINGS._replace(image_side_px=17))
    with pytest.raises(BadInput, match=r"train\.model\.patch_side 3"):
        encode(parts, [], SETTINGS._replace(patch_side=3))


def test_the_folder_lists_what_a_reader_must_know(encoded) -> None:
    manifest = read_manifest(encoded.latents, kind="latents")
    assert manifest["latent_shape"] == [4, 8, 8]
    assert manifest["row_length"] == 80
    assert manifest["patch_side"] == 2
    assert manifest["special_ids"]["boi"] == 3
    assert manifest["num_set_aside"] == 3
    table = pq.read_table(encoded.latents / "table.parquet").to_pylist()
    for split in SPLITS:
        rows = [row for row in table if row["split"] == split]
        keys = [key for path in shard_paths(encoded.latents, split) for key in shard_keys(open_shard(path))]
        assert [row["key"] for row in rows] == keys
        assert len(rows) == manifest["num_documents"][split]
        assert sum(row["num_images"] for row in rows) == manifest["num_images"][split]
        filled = sum(row["num_positions"] for row in rows) / (manifest["num_rows"][split] * 80)
        assert manifest["packing_fill"][split] == pytest.approx(filled, abs=1e-6)


def test_the_digest_follows_everything_the_result_depends_on(encoded, tmp_path: Path) -> None:
    digest = work_digest(encoded.sources, SETTINGS)
    assert digest == work_digest(encoded.sources, SETTINGS)
    assert digest == work_digest(encoded.sources, SETTINGS._replace(batch_size=99))
    assert digest != work_digest(encoded.sources, SETTINGS._replace(row_length=81))
    assert digest != work_digest(encoded.sources, SETTINGS._replace(views=VIEWS))
    assert digest != work_digest(encoded.sources._replace(quarantine=frozenset({"made/train-1"})), SETTINGS)
    other = tmp_path / "tokenizer"
    load_tokenizer(encoded.sources.tokenizer).save(other)
    (other / "manifest.json").write_text((other / "manifest.json").read_text() + " ")
    assert digest != work_digest(encoded.sources._replace(tokenizer=other), SETTINGS)


def test_only_what_is_not_whole_is_done_again(encoded, tmp_path: Path) -> None:
    items = plan(encoded.sources, tmp_path)
    assert unfinished(items) == items
    encoder = PartEncoder(encoded.sources, SETTINGS)
    for item in items[:6]:
        encoder(item)
    first, second, third, _, *broken = (Path(item["shard"]) for item in items[:6])
    for shard, content in zip(broken, (b"{}", b'{"sha'), strict=True):
        shard.with_suffix(".json").write_bytes(content)
    first.write_bytes(first.read_bytes()[:-1])
    second.with_suffix(".json").unlink()
    third.unlink()
    assert unfinished(items) == [*items[:3], *items[4:]]


@pytest.mark.parametrize("batch_size", [1, 2, 64, 1000])
def test_the_batch_size_changes_no_byte(encoded, tmp_path: Path, batch_size: int) -> None:
    encoder = PartEncoder(encoded.sources, SETTINGS._replace(batch_size=batch_size, views=VIEWS))
    reference = PartEncoder(encoded.sources, SETTINGS._replace(batch_size=7, views=VIEWS))
    (item, *_), (other, *_) = plan(encoded.sources, tmp_path / "a"), plan(encoded.sources, tmp_path / "b")
    encoder(item)
    reference(other)
    assert sha256(Path(item["shard"])) == sha256(Path(other["shard"]))


def test_neither_order_nor_company_changes_a_latent(parts, encoded) -> None:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    settings = SETTINGS._replace(views=VIEWS)
    whole = latents_by_document(encode(parts, encoded.documents, settings))
    for _ in range(3):
        drawn = generator.permutation(len(encoded.documents))[: int(generator.integers(1, 30))]
        chosen = [encoded.documents[index] for index in drawn]
        some = latents_by_document(encode(parts, chosen, settings))
        # The crowd is set aside; drawn alone it leaves nothing.
        assert {name.partition("#")[0] for name in some} == {document_name(one.source, one.key) for one in chosen} - {CROWD}
        assert some == {name: whole[name] for name in some}


def latents_by_document(result: EncodedPart) -> dict[str, bytes]:
    shard = result.shard
    found = {}
    for index, name in enumerate(shard_keys(shard)):
        mine = shard.image_document == index
        arrays = (shard.latents, shard.latent_std, shard.variants, shard.variant_std)
        found[name] = b"".join(array[mine].tobytes() for array in arrays if array is not None)
    return found


def test_views_are_the_latents_of_their_pictures_and_for_training_alone(parts, encoded, tmp_path: Path) -> None:
    _, autoencoder = parts
    encoder = PartEncoder(encoded.sources, SETTINGS._replace(views=VIEWS))
    items = plan(encoded.sources, tmp_path)
    train, held_out = items[0], next(item for item in items if item["split"] == "test")
    encoder(train)
    encoder(held_out)
    assert open_shard(Path(held_out["shard"])).variants is None
    shard = open_shard(Path(train["shard"]))
    images = [data for document in encoded.documents[:9] for data in document.images]
    pictures = [view for data in images for view in views_of(decode_png(data), VIEWS)]
    with torch.inference_mode():
        moments = autoencoder.encode_moments(to_pixels(torch.from_numpy(np.stack(pictures))))
    shape = (len(images), VIEWS.number, *shard.latents.shape[1:])
    assert shard.variants is not None and shard.variant_std is not None
    stored = np.concatenate([shard.latents[:, None], shard.variants], axis=1)
    np.testing.assert_allclose(stored, moments.mean.numpy().reshape(shape), rtol=2e-3, atol=2e-3)
    stored = np.concatenate([shard.latent_std[:, None], shard.variant_std], axis=1)
    np.testing.assert_allclose(stored, moments.std.numpy().reshape(shape), rtol=2e-3, atol=2e-3)


def test_parts_are_joined_to_shards_of_the_wanted_size(encoded, tmp_path: Path) -> None:
    whole = assembled(encoded, tmp_path, ASSEMBLY._replace(shard_bytes=2**30))
    alone = assembled(encoded, tmp_path, ASSEMBLY._replace(shard_bytes=1))
    assert len(shard_paths(whole, "train")) == 1
    assert len(shard_paths(alone, "train")) == len(list((tmp_path / "work/train").glob("*.safetensors"))) == 5
    # Some of either kind in the fixture's own folder.
    assert 1 < len(shard_paths(encoded.latents, "train")) < 5
    batches = [everything(folder) for folder in (whole, alone, encoded.latents)]
    assert batches[0] == batches[1] == batches[2]
    manifest = read_manifest(alone, kind="latents")
    records = {name: entry["records"] for name, entry in manifest["files"].items() if "shard-" in name}
    assert sum(records.values()) == sum(manifest["num_documents"].values())


def assembled(encoded, folder: Path, assembly: Assembly) -> Path:
    """The fixture's documents, encoded once below `folder`, put together in another way."""
    items = plan(encoded.sources, folder / "work")
    if unfinished(items):
        encoder = PartEncoder(encoded.sources, SETTINGS)
        for item in items:
            encoder(item)
    target = folder / f"latents-{len(list(folder.iterdir()))}"
    assemble(encoded.sources, SETTINGS, assembly, folder / "work", target)
    return target


def everything(latents: Path) -> list[list]:
    rows = PackedRows(latents, "train", None)
    wanted = range(rows.num_rows)
    batch = rows.batch(wanted, step=1, seed=1, patch_side=2, caption_dropout=0.5, image_first_time_limit=0.5)
    (images,) = batch.latents
    return [part.tolist() for part in (batch.input_ids, batch.kv_start, images.patches, images.sample_index)]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV], ids=errno.errorcode.get)
def test_a_file_system_without_hard_links_gives_the_same_bytes(
    encoded, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    linked = assembled(encoded, tmp_path, ASSEMBLY._replace(shard_bytes=1))
    monkeypatch.setattr(os, "link", refused)
    copied = assembled(encoded, tmp_path, ASSEMBLY._replace(shard_bytes=1))
    assert read_manifest(copied, kind="latents") == read_manifest(linked, kind="latents")


class DeadlyEncoder(PartEncoder):
    """One whose decoder ends the process at a document of the second part, and that counts its tries."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        if any(document.key == "train-12" for document in read_part(Path(item["part"]))):
            with Path(item["shard"]).with_suffix(".tried").open("ab") as tries:
                tries.write(b"x")
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().__call__(item)


def test_a_document_that_ends_its_process_ends_the_work_and_a_second_run_goes_on(
    encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRANSFUSION_NUM_ACTORS", "1")
    items = plan(encoded.sources, tmp_path)
    with start_ray():
        with monkeypatch.context() as patch:
            patch.setattr(encoding, "PartEncoder", DeadlyEncoder)
            with pytest.raises(WorkersFailed) as raised:
                encode_parts(encoded.sources, SETTINGS, tmp_path)
        said = sentence_of(raised.value) or ""
        assert f"{items[1]['part']} ended the worker that encoded it 3 times" in said and "\n" not in said
        assert "its 9 documents, made/train-9 to made/train-17; " in said and "encode.batch_size" in said
        assert Path(items[1]["shard"]).with_suffix(".tried").stat().st_size == 3
        left = unfinished(items)
        assert items[1] in left and len(left) < len(items)
        encode_parts(encoded.sources, SETTINGS, tmp_path)
    assert f"{len(items) - len(left)} of {len(items)} parts" in capfd.readouterr().out
    undisturbed = [sha256(Path(item["shard"])) for item in plan(encoded.sources, encoded.latents.parent / "work")]
    assert [sha256(Path(item["shard"])) for item in items] == undisturbed
    assert not (tmp_path / "tries").exists()


def test_the_mixture_acts_on_the_training_split_alone_and_is_reported(encoded, tmp_path: Path) -> None:
    plain = read_manifest(encoded.latents, kind="latents")
    number = plain["num_documents"]["train"]
    assert plain["mixture"]["train"]["sources"] == {"made": {"documents": number, "in_rows": number}}
    before = plain["mixture"]["train"]["text_to_image"]
    ratio = before + 1.5
    mixed = assembled(encoded, tmp_path, Assembly({"made": 2.0}, ratio, 60_000, ASSEMBLY.ancestors))
    manifest = read_manifest(mixed, kind="latents")
    found = manifest["mixture"]["train"]
    assert found["text_to_image"] == pytest.approx(ratio, abs=0.05)
    assert found["image_positions"] == 2 * plain["mixture"]["train"]["image_positions"]
    assert manifest["mixture"]["test"] == plain["mixture"]["test"]
    packing = open_packing(mixed / "train" / "packing.safetensors")
    assert len(packing.document) == found["sources"]["made"]["in_rows"]
    used = packing.length.sum() / (manifest["num_rows"]["train"] * 80)
    assert manifest["packing_fill"]["train"] == pytest.approx(used, abs=1e-6)
    assert found["text_positions"] + found["image_positions"] == packing.length.sum()
    rows = PackedRows(mixed, "train", None)
    batch = rows.batch(range(rows.num_rows), step=0, seed=0, patch_side=2, caption_dropout=0, image_first_time_limit=1)
    assert np.unique(batch.latents[0].sample_index, return_counts=True)[1].tolist() == [2] * rows.num_images
