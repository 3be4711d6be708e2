"""Copies of training pictures are flagged, and other pictures are not; the nearest picture is the nearest one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.evaluation import memorisation
from components.evaluation.config import MemorisationConfig
from components.evaluation.generated import HeldOutPictures
from components.evaluation.held_out import ImageDocument, Stored
from components.evaluation.images import encode
from components.evaluation.intervals import interval, items_of, values_of
from components.evaluation.memorisation import (
    flagged_shares,
    measure_memorisation,
    nearest_training,
    spread,
    threshold_of,
)
from components.evaluation.results import NUM_SHOWN, EvaluationTarget, Results
from components.evaluation.training_facts import TrainingFacts
from core.tokenizer import TextTokenizer
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion

SEED, NUM, NUM_TRAINING = 47, 100, 60
SETTINGS = MemorisationConfig(max_training_pictures=1000, held_out_share=0.02)


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    torch.manual_seed(2)
    shape = {"layers_per_block": 1, "latent_channels": 4, "norm_groups": 4, "sample_side_px": 16}
    return Autoencoder.create(block_channels=(8, 8), **shape).eval()


@pytest.fixture
def target(model: Transfusion, autoencoder: Autoencoder, tokenizer: TextTokenizer) -> EvaluationTarget:
    return EvaluationTarget(model, autoencoder, tokenizer)


def drawn(num: int, seed: int) -> np.ndarray:
    return np.random.default_rng([SEED, seed]).integers(0, 256, (num, 16, 16, 3), np.uint8)


def trained_on(autoencoder: Autoencoder, images: np.ndarray) -> TrainingFacts:
    """Two shards of them."""
    latents = encode(autoencoder, images).astype(np.float16)
    return TrainingFacts([], [], frozenset(), (), (latents[:7], latents[7:]))


def beside(autoencoder: Autoencoder, generated: np.ndarray, held_out: np.ndarray) -> HeldOutPictures:
    latents = encode(autoencoder, held_out)
    documents = [
        ImageDocument(f"c/{number}", Stored(np.zeros(1, np.int64), latent[None]), "", (), None, ())
        for number, latent in enumerate(latents)
    ]
    return HeldOutPictures(documents, generated)


def test_a_copy_is_flagged_and_a_fresh_picture_is_not(target: EvaluationTarget) -> None:
    training, fresh = drawn(NUM_TRAINING, 0), drawn(NUM, 1)
    # A copy as a model makes it: not to the last bit.
    copies = {3: 50, 8: 2}
    generated = fresh.copy()
    for number, source in copies.items():
        generated[number] = np.clip(training[source].astype(int) + 4, 0, 255)
    results, pictures = Results(), beside(target.autoencoder, generated, drawn(NUM, 2))
    measure_memorisation(results, target, pictures, trained_on(target.autoencoder, training), SETTINGS, SEED)
    flagged = results.items["memorisation/flagged_share"]
    assert [number for number in copies if flagged.top[number]] == [*copies]
    assert results.metrics["memorisation/flagged_share"] == flagged.top.mean() <= 0.08
    assert results.facts["memorisation"]["num_training_pictures"] == NUM_TRAINING
    shown = results.nearest_training
    assert len(shown) == NUM_SHOWN
    assert [each.similarity for each in shown] == sorted((each.similarity for each in shown), reverse=True)
    assert all(each.flagged and each.similarity > 0.95 for each in shown[:2])
    assert {each.generated.tobytes() for each in shown[:2]} == {generated[number].tobytes() for number in copies}
    # Beside each the very picture that it was copied from, as the autoencoder decodes it.
    latents = np.concatenate(trained_on(target.autoencoder, training).latents).astype(np.float32)
    decoded = memorisation.decode(target.autoencoder, torch.from_numpy(latents)).astype(int)
    source_of = {generated[number].tobytes(): source for number, source in copies.items()}
    for each in shown[:2]:
        apart = np.abs(decoded - each.training).reshape(NUM_TRAINING, -1).max(1)
        assert [number for number in range(NUM_TRAINING) if apart[number] <= 1] == [source_of[each.generated.tobytes()]]


def test_held_out_pictures_in_place_of_generated_ones_are_flagged_as_the_share_says(target: EvaluationTarget) -> None:
    held_out = drawn(NUM, 2)
    results, pictures = Results(), beside(target.autoencoder, held_out, held_out)
    settings = MemorisationConfig(max_training_pictures=1000, held_out_share=0.1)
    measure_memorisation(results, target, pictures, trained_on(target.autoencoder, drawn(NUM_TRAINING, 0)), settings, SEED)
    # At most a tenth of 100, and the one that the threshold is of does not count.
    assert 0.08 <= results.metrics["memorisation/flagged_share"] <= 0.1


def test_the_interval_holds_what_the_threshold_owes_to_the_held_out_pictures() -> None:
    """It covers the share of a model that copies nothing in most draws, which an interval at a fixed threshold does not."""
    share, num, covered = 0.05, 200, {"both": 0, "fixed": 0}
    for number in range(100):
        similarity = np.random.default_rng([SEED, number]).normal(size=2 * num)
        flagged = items_of(list(map(str, range(num))), similarity[:num] > threshold_of(similarity[num:], share), np.ones(num))
        both = interval(lambda drawn, of=similarity: flagged_shares(of, drawn, share), num, SEED, 400)
        fixed = interval(lambda drawn, items=flagged: values_of(items, drawn), num, SEED, 400)
        assert both and fixed
        covered["both"] += both.low <= share <= both.high
        covered["fixed"] += fixed.low <= share <= fixed.high
    assert covered["both"] >= 88 > 84 >= covered["fixed"]


def test_the_nearest_picture_is_the_nearest_by_cosine_however_shards_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(SEED)
    latents, stored = rng.normal(size=(5, 2, 3, 3)), rng.normal(size=(11, 2, 3, 3)).astype(np.float16)
    centre = rng.normal(size=(2, 3, 3))
    monkeypatch.setattr(memorisation, "AT_ONCE", 3)
    similarity, nearest = nearest_training(latents, centre, [stored[:4], stored[4:5], stored[5:]])
    for latent, found, value in zip(latents, nearest, similarity, strict=True):
        one = (latent - centre).ravel()
        others = (stored.astype(np.float64) - centre).reshape(11, -1)
        cosines = others @ one / np.linalg.norm(one) / np.linalg.norm(others, axis=1)
        assert found == cosines.argmax()
        assert value == pytest.approx(cosines.max(), rel=1e-5)


def test_a_bound_keeps_pictures_of_every_part() -> None:
    stored = [np.arange(10), np.arange(10, 14)]
    assert [part.tolist() for part in spread(stored, 14)] == [part.tolist() for part in stored]
    # Of many small parts too no more than the bound, and of all of them.
    assert np.concatenate(spread(np.split(np.arange(100), 50), 10)).tolist() == list(range(0, 100, 10))
    assert [part.tolist() for part in spread(stored, 5)] == [[0, 3, 6, 9], [12]]


def test_too_few_held_out_pictures_are_a_note_and_pairs_without_a_flag(target: EvaluationTarget) -> None:
    results, pictures = Results(), beside(target.autoencoder, drawn(2, 1), drawn(2, 2))
    measure_memorisation(results, target, pictures, trained_on(target.autoencoder, drawn(NUM_TRAINING, 0)), SETTINGS, SEED)
    assert not results.metrics and not results.items
    assert results.notes == [
        "copies of training pictures need 50 held-out pictures, and the evaluation takes 2: none is flagged"
    ]
    assert [each.flagged for each in results.nearest_training] == [False, False]
