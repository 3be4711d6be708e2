"""A batch is what its documents say, and everything random in it a pure function of (seed, step, index)."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from components.data import loader
from components.data.documents import Document, TextSegment
from components.data.encode.packing import open_packing, pack, write_packing
from components.data.loader import PackedRows, rows_of_step
from components.data.quarantine import Quarantined, write_quarantine
from components.data.shards import Shard, open_shard, pack_keys, shard_keys, shard_path, shard_paths, write_shard
from core.errors import BadInput
from core.manifest import write_manifest
from core.png import decode_png
from core.random import seed_of, uniform
from core.tokenizer import load_tokenizer
from model.batch import Batch, Latents
from model.latents.autoencoder import Autoencoder, to_pixels

SIDE, PATCHES, ROW = 2, 16, 80


def names_by_row(latents: Path, split: str = "train") -> list[list[str]]:
    names = [key for path in shard_paths(latents, split) for key in shard_keys(open_shard(path))]
    packing = open_packing(latents / split / "packing.safetensors")
    return [[names[index] for index in packing.document[a:b]] for a, b in itertools.pairwise(packing.row_at)]


def batch_of(
    rows: PackedRows, wanted: list[int], *, step: int = 0, seed: int = 1, dropout: float = 0.0, resample: bool = False
) -> Batch:
    return rows.batch(
        wanted,
        step=step,
        seed=seed,
        patch_side=SIDE,
        caption_dropout=dropout,
        image_first_time_limit=0.5,
        resample_latents=resample,
    )


def tensors_of(batch: Batch) -> dict[str, torch.Tensor]:
    """Every tensor of a batch and of its images, by name."""
    parts = batch._asdict() | batch.latents[0]._asdict()
    return {name: part for name, part in parts.items() if isinstance(part, torch.Tensor)}


def assert_equal(one: Batch, other: Batch) -> None:
    for name, part in tensors_of(one).items():
        assert torch.equal(part, tensors_of(other)[name]), name


def is_weighted(parts: list[int | bytes], index: int) -> bool:
    """Whether part `index` is of a text behind an image; a document's end or an image right behind an image is not."""
    right_behind = index > 0 and isinstance(parts[index - 1], bytes)
    is_text = isinstance(parts[index], int) and parts[index] != 2
    return any(isinstance(part, bytes) for part in parts[:index]) and (is_text or not right_behind)


class Oracle:
    """Batches from documents, one token and one patch at a time, from the definitions alone."""

    def __init__(self, documents: list[Document], sources, latents: Path) -> None:
        self.tokenizer = load_tokenizer(sources.tokenizer)
        self.autoencoder = Autoencoder.from_pretrained(sources.autoencoder)
        self.rows = names_by_row(latents)
        self.documents = {f"{document.source}/{document.key}": document for document in documents}
        # Images are numbered in the order of the documents that were kept, over the whole split.
        self.first_image, count = {}, 0
        for name, document in self.documents.items():
            if not name.endswith("crowd"):
                self.first_image[name], count = count, count + len(document.images)

    def pieces(self, name: str) -> list[int | bytes]:
        """Text ids and image files of a document in order, bos and eos included; a `#n` cut of a long text."""
        base, _, number = name.partition("#")
        parts: list[int | bytes] = [1]
        for segment in self.documents[base].segments:
            parts += self.tokenizer.encode(segment.text) if isinstance(segment, TextSegment) else [segment.data]
        parts.append(2)
        start = int(number) * (ROW - 1) if number else 0
        return parts[start : start + ROW] if number else parts

    def patches(self, data: bytes) -> list[list[float]]:
        with torch.inference_mode():
            latent = self.autoencoder.encode(to_pixels(torch.from_numpy(decode_png(data).copy()[None])))[0]
        return [latent[:, y : y + SIDE, x : x + SIDE].flatten().tolist() for y in range(0, 8, SIDE) for x in range(0, 8, SIDE)]

    def batch(self, wanted: list[int], hidden: set[int]) -> dict[str, list]:
        """Every part of the batch as a flat list. hidden: numbers of the images that must not see their caption."""
        out: dict[str, list] = {name: [] for name in (*Batch._fields, *Latents._fields)}
        for row_number, row in enumerate(wanted):
            cells: list[tuple[int, int, int, int]] = []
            for name in self.rows[row]:
                self.lay(name, row_number * ROW, cells, out, hidden)
            cells += [(0, 0, at, at) for at in range(len(cells), ROW)]
            for part, values in zip(("input_ids", "position_ids", "kv_start", "kv_end"), zip(*cells, strict=True), strict=True):
                out[part] += values
        return out

    def lay(self, name: str, row_start: int, cells: list, out: dict[str, list], hidden: set[int]) -> None:
        start, parts, image = len(cells), self.pieces(name), self.first_image.get(name, 0)
        seen_text = False
        for index, part in enumerate(parts):
            at = len(cells)
            if isinstance(part, int):
                if index:
                    out["loss_positions"].append(row_start + at - 1)
                    out["labels"].append(part)
                    out["after_image"].append(is_weighted(parts, index))
                cells.append((part, at - start, start, at))
                seen_text |= part > 4
                continue
            out["loss_positions"].append(row_start + at - 1)
            out["labels"].append(3)
            out["after_image"].append(is_weighted(parts, index))
            first = at if image in hidden else start
            text_follows = any(isinstance(later, int) and later > 4 for later in parts[index:])
            out["time_limit"].append(0.5 if text_follows and not seen_text else 1.0)
            out["sample_index"].append(image)
            cells.append((3, at - start, first, at))
            for patch, values in enumerate(self.patches(part), start=1):
                out["patches"].append(values)
                out["patch_positions"].append(row_start + at + patch)
                out["latent_index"].append(len(out["sample_index"]) - 1)
                cells.append((0, at + patch - start, first, at + PATCHES))
            cells.append((4, len(cells) - start, start, len(cells)))
            image += 1


@pytest.mark.parametrize(("step", "dropout"), [(0, 0.0), (3, 0.5)])
def test_a_batch_equals_the_one_built_from_documents(encoded, step: int, dropout: float) -> None:
    rows = PackedRows(encoded.latents, "train", None)
    oracle = Oracle(encoded.documents, encoded.sources, encoded.latents)
    wanted = list(range(rows.num_rows))[::-1]
    batch = batch_of(rows, wanted, step=step, dropout=dropout)
    numbers = np.arange(rows.num_images)
    hidden = set(np.flatnonzero(uniform(1, step, numbers) < dropout).tolist())
    assert bool(hidden) == (dropout > 0)
    expected = oracle.batch(wanted, hidden)
    assert batch.input_ids.shape == (rows.num_rows, ROW)
    (images,) = batch.latents
    assert images.grids == ((4, 4),) * len(images.sample_index)
    ids = batch.input_ids.flatten().clone()
    ids[images.patch_positions] = 0
    assert ids.tolist() == expected["input_ids"]
    for name in (
        "position_ids",
        "kv_start",
        "kv_end",
        "patch_positions",
        "latent_index",
        "sample_index",
        "time_limit",
        "loss_positions",
        "labels",
        "after_image",
    ):
        part = getattr(images if name in Latents._fields else batch, name)
        assert part.flatten().tolist() == expected[name], name
    # Stored in float16.
    torch.testing.assert_close(images.patches, torch.tensor(expected["patches"]), atol=2e-3, rtol=2e-3)
    assert {row for row in oracle.rows for row in row} >= {f"made/train-{index}" for index in (0, 1, 3, 4)}


def test_dtypes_are_those_of_the_contract(encoded) -> None:
    batch = batch_of(PackedRows(encoded.latents, "train", None), [0, 1])
    wanted = dict.fromkeys(Batch._fields, torch.int64) | dict.fromkeys(Latents._fields[:-1], torch.int64)
    wanted |= {"kv_start": torch.int32, "kv_end": torch.int32, "after_image": torch.bool}
    wanted |= {"patches": torch.float32, "time_limit": torch.float32}
    assert {name: part.dtype for name, part in tensors_of(batch).items()} == {
        name: dtype for name, dtype in wanted.items() if name != "latents"
    }


def test_every_text_token_is_predicted_once_over_the_rows(encoded) -> None:
    rows = PackedRows(encoded.latents, "train", None)
    batch = batch_of(rows, list(range(rows.num_rows)))
    tokenizer = load_tokenizer(encoded.sources.tokenizer)
    said = Counter(id for doc in encoded.documents[:-1] for part in doc.texts for id in tokenizer.encode(part))
    assert Counter(id for id in batch.labels.tolist() if id > 4) == said


def test_a_quarantined_document_is_in_no_batch(encoded, tmp_path: Path) -> None:
    quarantine = tmp_path / "latents.jsonl"
    gone = "made/train-3"
    write_quarantine(quarantine, [Quarantined(gone, "latent_std_max = 9")])
    (row,) = [number for number, names in enumerate(names_by_row(encoded.latents)) if gone in names]
    everything = PackedRows(encoded.latents, "train", None)
    rows = PackedRows(encoded.latents, "train", quarantine)
    before, after = batch_of(everything, [row]), batch_of(rows, [row])
    assert rows.num_left_out == 1
    assert rows.num_rows == everything.num_rows
    samples = [part.latents[0].sample_index.tolist() for part in (before, after)]
    assert len(samples[0]) - len(samples[1]) == 2
    # What stays keeps its number, and so its noise and its dropped captions.
    assert set(samples[1]) < set(samples[0])
    assert (before.input_ids == 1).sum() - (after.input_ids == 1).sum() == 1
    others = [number for number in range(rows.num_rows) if number != row]
    assert_equal(batch_of(everything, others), batch_of(rows, others))


def test_a_row_with_nothing_left_is_padding(encoded, tmp_path: Path) -> None:
    names = names_by_row(encoded.latents)[0]
    write_quarantine(tmp_path / "q", [Quarantined(name, "bad") for name in names])
    batch = batch_of(PackedRows(encoded.latents, "train", tmp_path / "q"), [0])
    assert batch.input_ids.tolist() == [[0] * ROW]
    assert batch.kv_start.tolist() == batch.kv_end.tolist() == [list(range(ROW))]
    assert batch.latents[0].patches.shape == (0, 16)
    assert len(batch.labels) == 0


def test_a_missing_or_broken_quarantine_is_refused(encoded, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="missing"):
        PackedRows(encoded.latents, "train", tmp_path / "none")
    (tmp_path / "q").write_text("not json\n")
    with pytest.raises(BadInput, match="not a quarantine file"):
        PackedRows(encoded.latents, "train", tmp_path / "q")


def test_batches_are_pure_functions_of_seed_and_step(encoded) -> None:
    first, second = (PackedRows(encoded.latents, "train", None) for _ in range(2))
    wanted = list(range(first.num_rows))
    batch_of(first, [2, 0], step=8, dropout=0.5)  # no state is left behind
    a, b = (batch_of(rows, wanted, step=9, seed=4, dropout=0.5) for rows in (first, second))
    assert_equal(a, b)
    assert not torch.equal(a.kv_start, batch_of(first, wanted, step=10, seed=4, dropout=0.5).kv_start)
    assert not torch.equal(a.kv_start, batch_of(first, wanted, step=9, seed=5, dropout=0.5).kv_start)


def test_an_image_drops_its_caption_whatever_shares_its_batch(encoded) -> None:
    rows = PackedRows(encoded.latents, "train", None)
    together = batch_of(rows, list(range(rows.num_rows)), step=2, dropout=0.5)
    alone = [batch_of(rows, [row], step=2, dropout=0.5).kv_start for row in range(rows.num_rows)]
    assert torch.equal(together.kv_start, torch.cat(alone))


@pytest.fixture(scope="module")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents of six views an image; every number of a latent tells which image and view it is of, every deviation is 0.5."""
    folder = tmp_path_factory.mktemp("viewed")
    write_rows(folder, num_documents=50, num_views=6)
    return folder


def write_rows(folder: Path, *, num_documents: int, num_views: int) -> None:
    """Two shards of documents, each a caption and its image."""
    image = np.arange(num_documents)[:, None] * 10 + np.arange(num_views)
    values = np.broadcast_to(image[:, :, None, None, None], (*image.shape, 1, 4, 4)).astype(np.float16)
    for number, part in enumerate(np.array_split(np.arange(num_documents), 2)):
        keys, key_at = pack_keys(f"{name}" for name in part)
        shard = Shard(
            ids=np.tile(np.array([1, 9, 3, 4, 2], np.int32), len(part)),
            document_at=np.arange(0, 5 * len(part) + 1, 5),
            latents=values[part, 0],
            latent_std=np.full_like(values[part, 0], 0.5),
            image_document=np.arange(len(part), dtype=np.int32),
            image_at=np.arange(2, 5 * len(part), 5),
            image_first=np.zeros(len(part), np.bool_),
            keys=keys,
            key_at=key_at,
            variants=values[part, 1:],
            variant_std=np.full_like(values[part, 1:], 0.5),
        )
        write_shard(shard_path(folder, "train", number), shard)
    write_packing(folder / "train" / "packing.safetensors", pack(np.full(num_documents, 9), 30))
    facts = {"latent_shape": [1, 4, 4], "patch_side": SIDE, "row_length": 30, "vocab_size": 10}
    write_manifest(folder, kind="latents", special_ids={"pad": 0, "bos": 1, "eos": 2, "boi": 3, "eoi": 4}, **facts)


def test_a_step_sees_one_view_of_each_image_and_every_view_in_time(viewed: Path) -> None:
    rows = PackedRows(viewed, "train", None)
    everything = list(range(rows.num_rows))
    seen = np.zeros((rows.num_images, rows.num_views), int)
    for step in range(200):
        (images,) = batch_of(rows, everything, step=step).latents
        values = images.patches.view(rows.num_images, -1).long()
        assert (values == values[:, :1]).all()
        sample, view = values[:, 0] // 10, values[:, 0] % 10
        assert sample.tolist() == images.sample_index.tolist()
        seen[sample, view] += 1
    assert seen.min() > 10
    # Chi-squared over all cells, 50 x 5 free: its mean is 250 and its deviation 22.
    assert ((seen - 200 / 6) ** 2 / (200 / 6)).sum() < 360
    again = [batch_of(PackedRows(viewed, "train", None), everything, step=7).latents[0].patches for _ in range(2)]
    assert torch.equal(*again)
    alone = [batch_of(rows, [row], step=7).latents[0].patches for row in everything]
    assert torch.equal(torch.cat(alone), again[0])


def test_resampled_latents_are_draws_of_the_posterior_keyed_by_step_and_image(viewed: Path) -> None:
    rows = PackedRows(viewed, "train", None)
    everything = list(range(rows.num_rows))
    mean, drawn = (batch_of(rows, everything, step=3, resample=resample).latents[0].patches for resample in (False, True))
    noise = (drawn - mean) / 0.5
    assert abs(noise.mean()) < 0.1
    assert abs(noise.std() - 1) < 0.1
    assert len(noise.unique()) > 0.99 * noise.numel()
    alone = [batch_of(rows, [row], step=3, resample=True).latents[0].patches for row in everything]
    assert torch.equal(torch.cat(alone), drawn)
    other = batch_of(rows, everything, step=4, resample=True).latents[0].patches
    other_mean = batch_of(rows, everything, step=4).latents[0].patches
    assert abs(np.corrcoef(noise.flatten(), ((other - other_mean) / 0.5).flatten())[0, 1]) < 0.1


def test_every_bit_of_a_stream_changes_the_draw_of_the_posterior(viewed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = PackedRows(viewed, "train", None)

    def drawn(upper: int) -> torch.Tensor:
        monkeypatch.setattr(loader, "seed_of", lambda *key: seed_of(*key) % 2**32 + upper * 2**32)
        return batch_of(rows, [0], step=3, resample=True).latents[0].patches

    assert (drawn(1) != drawn(2)).float().mean() > 0.99


def test_an_epoch_holds_every_row_once() -> None:
    steps = [rows_of_step(7, step, 4, 10) for step in range(5)]
    rows = np.concatenate(steps)
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    assert all(np.array_equal(rows_of_step(7, step, 4, 10), steps[step]) for step in (4, 0, 2))
    assert rows_of_step(8, 0, 10, 10).tolist() != rows[:10].tolist()
    assert Counter(rows_of_step(7, 1, 25, 10).tolist()).keys() == set(range(10))


def test_wrong_patch_side_and_split_are_refused(encoded) -> None:
    with pytest.raises(BadInput, match="patch_side 2, not 4"):
        PackedRows(encoded.latents, "train", None).batch(
            [0], step=0, seed=0, patch_side=4, caption_dropout=0, image_first_time_limit=0.5
        )
    with pytest.raises(BadInput, match="no packed shards"):
        PackedRows(encoded.latents, "other", None)


def test_building_a_batch_is_quick(encoded) -> None:
    rows = PackedRows(encoded.latents, "train", None)
    wanted = np.arange(51) % rows.num_rows
    spent_s = []
    for step in range(20):
        started_s = time.perf_counter()
        batch_of(rows, wanted.tolist(), step=step, dropout=0.1)
        spent_s.append(time.perf_counter() - started_s)
    # 51 rows of 80 positions are as long as 16 of 256; the best of 20, as others use the machine.
    assert min(spent_s) < 0.010
