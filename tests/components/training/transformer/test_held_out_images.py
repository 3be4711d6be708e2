"""Errors of held-out images are those of a direct computation, one image a pass; a wrong caption is another image's."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.multiprocessing

from components.data.loader import ImageDocument, PackedRows
from components.runtime.world import World
from components.training.transformer.config import HeldOutImagesConfig, TrainConfig
from components.training.transformer.held_out_images import STREAM, HeldOutImages, ImageErrors, other_captions, rows_in_order
from components.training.transformer.state import configuration
from core.random import seed_of
from model.batch import Batch, Latents
from model.config import PredictionType
from model.diffusion.schedules import COSINE, alpha_sigma
from model.transfusion import Transfusion
from tests.components.training.conftest import CONFIG, PATCHES_AN_IMAGE, Corpus

ALONE = World(0, 1, torch.device("cpu"))
LEVELS = (0.3, 0.8)


def config_of(prediction_type: PredictionType, number: int) -> TrainConfig:
    images = HeldOutImagesConfig(num_documents=number, noise_levels=LEVELS)
    model = dataclasses.replace(CONFIG.model, prediction_type=prediction_type)
    return dataclasses.replace(CONFIG, model=model, held_out_images=images)


def model_of(config: TrainConfig, rows: PackedRows) -> Transfusion:
    torch.manual_seed(7)
    return Transfusion(configuration(config, rows)).eval()


def squared_error(model: Transfusion, rows: PackedRows, document: ImageDocument, caption: list[int], number: int) -> float:
    """[bos] caption [boi] patches [eoi] [eos] in a row of its own; written for flow and v, from their definitions."""
    special = rows.special_ids
    text = [special["bos"], *caption, special["boi"]]
    length, first = len(text) + PATCHES_AN_IMAGE + 2, len(text)
    ids = torch.tensor([[*text, *[special["pad"]] * PATCHES_AN_IMAGE, special["eoi"], special["eos"]]])
    own = torch.arange(length, dtype=torch.int32).unsqueeze(0)
    kv_end = own.clone()
    kv_end[0, first : first + PATCHES_AN_IMAGE] = first + PATCHES_AN_IMAGE - 1
    # What a begin-of-image sees is itself, as any text.
    images = Latents(
        patches=document.patches,
        patch_positions=torch.arange(first, first + PATCHES_AN_IMAGE),
        latent_index=torch.zeros(PATCHES_AN_IMAGE, dtype=torch.long),
        sample_index=torch.from_numpy(document.sample_index),
        time_limit=torch.ones(1),
        grids=(rows.grid,),
    )
    none = torch.zeros(0, dtype=torch.long)
    batch = Batch(ids, own.long(), torch.zeros_like(own), kv_end, (images,), none, none, none.bool())
    alpha_t, sigma_t = (float(factor) for factor in alpha_sigma(COSINE, torch.tensor(LEVELS[number], dtype=torch.float64)))
    key = seed_of(seed_of(CONFIG.seed, STREAM, number), 0, int(document.sample_index[0]), 0)
    generator = np.random.Generator(np.random.Philox(key=key))
    generator.random(dtype=np.float32)
    noise = torch.from_numpy(generator.standard_normal(tuple(document.patches.shape), dtype=np.float32))
    is_flow = model.config.process.is_flow
    # The same ratio of image and noise, on the straight line between the two.
    time = sigma_t / (alpha_t + sigma_t) if is_flow else LEVELS[number]
    x_t = (1 - time) * document.patches + time * noise if is_flow else alpha_t * document.patches + sigma_t * noise
    with torch.inference_mode():
        (prediction,) = model(batch, [x_t], [torch.tensor([time])]).predictions
    x_0 = x_t - time * prediction if is_flow else alpha_t * x_t - sigma_t * prediction
    return (x_0 - document.patches).double().square().sum().item()


def captions_of(rows: PackedRows, documents: list[ImageDocument]) -> list[list[int]]:
    controls = set(rows.special_ids.values())
    return [[token for token in document.ids.tolist() if token not in controls] for document in documents]


@pytest.mark.parametrize("prediction_type", ["flow", "v"])
def test_errors_are_those_of_images_one_by_one(corpus: Corpus, prediction_type: PredictionType) -> None:
    config, rows = config_of(prediction_type, 6), corpus.rows("validation")
    model, documents = model_of(config, rows), rows.image_documents(6)
    captions = captions_of(rows, documents)
    assert len(documents) == 6 and len({tuple(caption) for caption in captions}) > 1
    wrong = [
        next(captions[(index + step) % 6] for step in range(1, 6) if captions[(index + step) % 6] != captions[index])
        for index in range(6)
    ]
    num_values = sum(document.patches.numel() for document in documents)
    right_errors, wrong_errors = (
        [
            sum(
                squared_error(model, rows, document, caption, number)
                for document, caption in zip(documents, given, strict=True)
            )
            / num_values
            for number in range(len(LEVELS))
        ]
        for given in (captions, wrong)
    )
    found = HeldOutImages(rows, config, ALONE).measure(model)
    assert list(found.x0_error) == list(LEVELS)
    assert list(found.x0_error.values()) == pytest.approx(right_errors, rel=1e-4)
    gap = np.mean(wrong_errors) - np.mean(right_errors)
    assert abs(gap) > 1e-4 and found.caption_gap == pytest.approx(gap, rel=2e-2)


def test_batches_and_workers_change_nothing(corpus: Corpus) -> None:
    rows = corpus.rows("validation")
    config = config_of("flow", 7)
    model = model_of(config, rows)
    whole = HeldOutImages(rows, config, ALONE).measure(model)
    narrow = HeldOutImages(rows, dataclasses.replace(config, batch_rows=1), ALONE).measure(model)
    assert list(narrow.x0_error.values()) == pytest.approx(list(whole.x0_error.values()), rel=1e-5)
    shares = [HeldOutImages(rows, config, World(rank, 3, ALONE.device)) for rank in range(3)]
    sums = torch.zeros(3, len(LEVELS) + 1, dtype=torch.float64)

    class Summed(World):
        """Adds up one worker after the other, where all would do so together."""

        def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
            sums.add_(values)
            return values.copy_(sums)

    measured = ImageErrors({}, None)
    for rank, share in enumerate(shares):
        share.world = Summed(rank, 3, ALONE.device)
        measured = share.measure(model)
    assert list(measured.x0_error.values()) == pytest.approx(list(whole.x0_error.values()), rel=1e-5)
    assert measured.caption_gap == pytest.approx(whole.caption_gap, rel=1e-3)


def test_an_image_whose_caption_comes_behind_it_is_measured_behind_its_caption(corpus: Corpus) -> None:
    rows = corpus.rows("validation")
    boi = rows.special_ids["boi"]
    documents = rows.image_documents(100)
    assert {document.ids[1] == boi for document in documents} == {True, False}
    assert len(documents) == 8, "of eleven documents every third is text alone"
    assert [int(document.sample_index[0]) for document in rows.image_documents(4)] == [0, 2, 4, 6], "spread evenly"


def test_a_wrong_caption_is_of_another_image_and_says_something_else() -> None:
    def image(value: float) -> ImageDocument:
        return ImageDocument(np.zeros(1, np.int64), np.zeros(1, np.int64), torch.full((4, 2), value))

    words = [np.array(ids) for ids in ([5], [6], [5], [7])]
    # The first two show one image; the first and the third say the same.
    documents = [image(1.0), image(1.0), image(2.0), image(3.0)]
    assert other_captions(documents, words) == [3, 2, 3, 0]
    assert other_captions(documents[:2], words[:2]) == [None, None], "two captions of one image"
    assert other_captions([documents[0], documents[2]], [words[0], words[2]]) == [None, None], "one caption"
    assert other_captions([], []) == []
    # The second differs from the first in its image alone, and from the third in its caption alone.
    documents, words = [image(1.0), image(2.0), image(2.0)], [np.array(ids) for ids in ([5], [5], [7])]
    assert other_captions(documents, words) == [2, None, 0], "one without a partner leaves the others theirs"
    none = np.zeros(0, np.int64)
    assert other_captions([*documents, image(3.0)], [*words, none]) == [2, None, 0, None], "no caption is none to be given"


def test_the_gap_leaves_out_a_document_without_a_partner(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, config = corpus.rows("validation"), config_of("flow", 3)
    model, (first, second, third) = model_of(config, rows), rows.image_documents(100)[:3]
    bos, boi, eoi, eos = (rows.special_ids[name] for name in ("bos", "boi", "eoi", "eos"))

    def captioned(document: ImageDocument, caption: list[int]) -> ImageDocument:
        return document._replace(ids=np.array([bos, *caption, boi, eoi, eos]))

    few, many = sorted({tuple(caption) for caption in captions_of(rows, [*rows.image_documents(100)])}, key=len)[:2]
    few, many = list(few), list(many)
    documents = [captioned(first, few), captioned(second, few), captioned(third, many)._replace(patches=second.patches)]
    monkeypatch.setattr(rows, "image_documents", lambda number: documents)
    found = HeldOutImages(rows, config, ALONE)
    assert found.has_captions
    measured = found.measure(model)

    def mean(indices: list[int], given: list[list[int]], number: int) -> float:
        pairs = [(documents[index], caption) for index, caption in zip(indices, given, strict=True)]
        errors = [squared_error(model, rows, document, caption, number) for document, caption in pairs]
        return sum(errors) / sum(document.patches.numel() for document, _ in pairs)

    # The second's image is the third's and its caption the first's: its error counts, and it is in neither half of the gap.
    of_all = [mean([0, 1, 2], [few, few, many], number) for number in range(len(LEVELS))]
    assert list(measured.x0_error.values()) == pytest.approx(of_all, rel=1e-4)
    gaps = [mean([0, 2], [many, few], number) - mean([0, 2], [few, many], number) for number in range(len(LEVELS))]
    assert abs(np.mean(gaps)) > 1e-4 and measured.caption_gap == pytest.approx(np.mean(gaps), rel=2e-2)


def test_rows_are_filled_one_after_the_other() -> None:
    assert rows_in_order([3, 4, 4, 8, 1], 8).tolist() == [0, 0, 1, 2, 3]
    assert rows_in_order([], 8).tolist() == []


def test_text_alone_and_images_without_captions(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, config = corpus.rows("validation"), config_of("flow", 6)
    model, whole = model_of(config, rows), rows.image_documents(6)
    boi, eoi = rows.special_ids["boi"], rows.special_ids["eoi"]
    bare = [document._replace(ids=np.array([rows.special_ids["bos"], boi, eoi, rows.special_ids["eos"]])) for document in whole]
    monkeypatch.setattr(rows, "image_documents", lambda number: bare)
    found = HeldOutImages(rows, config, ALONE)
    assert (found.has_images, found.has_captions) == (True, False)
    errors = [sum(squared_error(model, rows, document, [], number) for document in bare) for number in range(len(LEVELS))]
    num_values = sum(document.patches.numel() for document in bare)
    measured = found.measure(model)
    assert list(measured.x0_error.values()) == pytest.approx([error / num_values for error in errors], rel=1e-4)
    assert measured.caption_gap is None
    monkeypatch.setattr(rows, "image_documents", lambda number: [])
    assert HeldOutImages(rows, config, ALONE).measure(model) == ImageErrors({}, None)
    assert all(map(math.isfinite, measured.x0_error.values()))
