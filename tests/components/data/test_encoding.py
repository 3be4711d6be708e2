"""Does encoding keep every token and picture, set aside what cannot fit, and give the same bytes however done?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from components.data.documents import SPLITS, Document, ImageSegment, TextSegment, document_name
from components.data.encoding import PartEncoder, Sources, assemble, encode_parts, plan, work_digest
from components.data.images import decode_png, encode_png
from components.data.latents import EncodeSettings, encode_part
from components.data.shards import check_shard, open_shard, shard_keys, shard_path, shard_paths
from components.data.tokenizer import load_tokenizer
from components.runtime.failure import BadInput
from components.runtime.files import read_json, read_manifest, sha256
from model.autoencoder import Autoencoder, to_pixels

SETTINGS = EncodeSettings(batch_size=3, row_length=80, patch_side=2, image_side_px=16)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parts(encoded):
    sources: Sources = encoded.sources
    return load_tokenizer(sources.tokenizer), Autoencoder.from_pretrained(sources.autoencoder)


def encode(parts, documents: list[Document], settings: EncodeSettings = SETTINGS, left_out: frozenset[str] = frozenset()):
    tokenizer, autoencoder = parts
    return encode_part(documents, tokenizer, autoencoder, settings, device=CPU, left_out=left_out)


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
    assert set(documents) - set(said) == {"made/train-crowd"}
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
        Document(key="both", source="s", segments=(long_text, picture), split="test"),
        Document(key="text", source="s", segments=(long_text,), split="test"),
        Document(key="gone", source="s", segments=(TextSegment("a"),), split="test"),
    ]
    result = encode(parts, documents, left_out=frozenset({"s/gone"}))
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
    assert digest != work_digest(encoded.sources, SETTINGS._replace(row_length=81))
    assert digest != work_digest(encoded.sources._replace(quarantine=frozenset({"made/train-1"})), SETTINGS)
    other = tmp_path / "tokenizer"
    load_tokenizer(encoded.sources.tokenizer).save(other)
    (other / "manifest.json").write_text((other / "manifest.json").read_text() + " ")
    assert digest != work_digest(encoded.sources._replace(tokenizer=other), SETTINGS)


def test_two_ray_workers_that_resume_give_the_bytes_of_one_process(encoded, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("TRANSFUSION_NUM_ACTORS", "2")
    work = tmp_path / "work"
    items = plan(encoded.sources, work)
    encoder = PartEncoder(encoded.sources, SETTINGS)
    for item in items[:2]:
        encoder(item)
    # A kill leaves a shard without its note, or with one that does not match.
    half_done = shard_path(work, "train", 1)
    half_done.write_bytes(half_done.read_bytes()[:-1])
    kept = shard_path(work, "train", 0).stat()

    encode_parts(encoded.sources, SETTINGS, work)
    assert f"1 of {len(items)} parts are there already" in capsys.readouterr().out
    assert shard_path(work, "train", 0).stat().st_mtime_ns == kept.st_mtime_ns
    report = assemble(encoded.sources, SETTINGS, work, tmp_path / "latents")

    names = sorted(path.relative_to(encoded.latents) for path in encoded.latents.rglob("*") if path.is_file())
    assert len(names) > 10
    assert {str(name): sha256(tmp_path / "latents" / name) for name in names} == {
        str(name): sha256(encoded.latents / name) for name in names
    }
    assert report["num_set_aside"] == 3
    assert len(report["latents"]["mean"]) == 4
    assert read_json(tmp_path / "latents/manifest.json")["kind"] == "latents"
