"""Retrieval, against single documents through other code, and with models that know more and less of which caption is whose."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from components.evaluation import retrieval
from components.evaluation.config import RetrievalConfig
from components.evaluation.diffusion import BatchError
from components.evaluation.held_out import HeldOut, ImageDocument, Stored
from components.evaluation.layout import rows_of
from components.evaluation.results import EvaluationTarget, Results
from components.evaluation.retrieval import caption_nats, groups_of, hits, image_losses, less_average, measure_retrieval
from core.random import seed_of
from core.tokenizer import TextTokenizer
from model.config import ModelConfig
from model.diffusion.noise import TimedNoise
from model.diffusion.schedules import times_of_equal_snr
from model.loss import loss_sums, loss_sums_at
from model.loss_options import PLAIN
from model.transfusion import Transfusion
from tests.components.evaluation.test_diffusion import NUM_PATCHES, document, one_image_error
from tests.components.evaluation.test_suite import CONFIG

SEED = 5
LEVELS = (0.4, 0.8)


def documents_of(config: ModelConfig, texts: list[list[int]]) -> list[ImageDocument]:
    return [document(config, number, text, str(text)) for number, text in enumerate(texts)]


@pytest.fixture
def groups(config: ModelConfig) -> list[list[ImageDocument]]:
    documents = documents_of(config, [[20, 21], [30, 31, 32, 33], [40], [21, 20], [50, 51, 52], [30]])
    return [documents[:3], documents[3:]]


def before(config: ModelConfig, image: ImageDocument, caption: ImageDocument) -> Stored:
    """The image and then the caption, whose stream `document` made."""
    bos, *text, boi, eoi, eos = caption.stored.ids.tolist()
    return Stored(np.array([bos, boi, eoi, *text, eos]), image.stored.latents)


def test_nats_of_a_caption_are_those_of_its_document_alone(model: Transfusion, groups: list[list[ImageDocument]]) -> None:
    clean = TimedNoise(torch.zeros(1), torch.zeros(NUM_PATCHES, model.config.patch_dim))
    wanted = [
        [
            [
                loss_sums_at(model, rows_of([before(model.config, image, caption)], model.config), [clean], PLAIN).by_place[0]
                for caption in group
            ]
            for image in group
        ]
        for group in groups
    ]
    with torch.inference_mode():
        np.testing.assert_allclose(caption_nats(model, groups), np.array(wanted, np.float64), rtol=1e-5)


def test_losses_of_an_image_are_those_of_single_denoising_steps(model: Transfusion, groups: list[list[ImageDocument]]) -> None:
    found = image_losses(model, groups, LEVELS, SEED)
    times = times_of_equal_snr(model.config.process, LEVELS)
    keys = [seed_of(SEED, retrieval.STREAM, number) for number in range(2)]
    for number, group in enumerate(groups):
        for row, caption in enumerate(group):
            for column, image in enumerate(group):
                stored = Stored(caption.stored.ids, image.stored.latents)
                # The same noise for an image under every caption, and another for every image.
                noise_of = 3 * number + column
                wanted = [one_image_error(model, stored, noise_of, time, key) for time, key in zip(times, keys, strict=True)]
                assert found[:, number, row, column].tolist() == pytest.approx(wanted, rel=1e-4)


def test_neither_batches_nor_the_order_of_documents_change_a_figure(
    model: Transfusion, config: ModelConfig, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = documents_of(config, [[20 + number, 30] for number in range(9)])
    found = measured(model, tokenizer, documents, size=4)
    monkeypatch.setattr(retrieval, "MAX_POSITIONS", 30)
    again = measured(model, tokenizer, documents[::-1], size=4)
    for key, items in found.items.items():
        assert items.names == again.items[key].names
        assert items.top.tolist() == again.items[key].top.tolist()


def test_a_group_holds_each_caption_and_image_once_and_the_rest_is_left_out(config: ModelConfig) -> None:
    settings = RetrievalConfig(group_size=3, num_groups=2, noise_levels=LEVELS)
    documents = documents_of(config, [[20 + number % 4] for number in range(14)])
    documents.append(documents[0]._replace(name="c/none", caption=None))
    found = groups_of(documents, settings, SEED)
    assert [len(group) for group in found] == [3, 3]
    assert all(len({one.caption for one in group}) == 3 for group in found)
    names = [one.name for group in found for one in group]
    assert max(Counter(names).values()) == 1
    assert groups_of(documents[::-1], settings, SEED) == found
    assert groups_of(documents, settings, SEED + 1) != found
    assert len(groups_of(documents, dataclasses.replace(settings, num_groups=9), SEED)) == 4
    # One image under several captions, of which none would be the right one.
    shown_again = [documents[0]._replace(name=f"d/{number}", caption=f"other {number}") for number in range(5)]
    assert groups_of([documents[0], *shown_again], settings, SEED) == []
    alike = [one for one in documents if one.caption == "[20]"]
    assert groups_of(alike, settings, SEED) == []


def test_a_hit_is_the_lowest_loss_at_ones_own_place_and_a_tie_counts_in_part() -> None:
    losses = np.array(
        [[[1.0, 2.0, 3.0], [0.0, 0.5, 9.0], [4.0, 4.0, 4.0]], [[5.0, 5.0, 6.0], [1.0, 0.0, 0.0], [3.0, 2.0, 1.0]]]
    )
    assert hits(losses).tolist() == [[1, 0, 1 / 3], [1 / 2, 1 / 2, 1]]
    losses[0, 0, 0] = losses[0, 2, 1] = np.nan
    losses[1, 0, 2] = -np.inf
    assert hits(losses).tolist() == [[0, 0, 0], [0, 1 / 2, 1]]


def test_levels_of_large_and_small_losses_count_alike(
    model: Transfusion, config: ModelConfig, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = documents_of(config, [[20 + number, 30] for number in range(12)])
    found = measured(model, tokenizer, documents, size=4).items["retrieval/image_at_1"].top.tolist()
    error = retrieval.target_error

    def scaled(*given: Any) -> BatchError:
        batch_error = error(*given)
        return BatchError(*(part * 1000 ** given[2].time[0] for part in batch_error))

    monkeypatch.setattr(retrieval, "target_error", scaled)
    assert measured(model, tokenizer, documents, size=4).items["retrieval/image_at_1"].top.tolist() == found
    assert 0 < sum(found) < len(found)


def test_a_candidate_that_is_easy_beside_all_does_not_win_them_all() -> None:
    # Each query lowers its own candidate's loss by 1; the candidates' own losses lie further apart.
    losses = np.array([[[9.0, 5.0, 0.0], [10.0, 4.0, 0.0], [10.0, 5.0, -1.0]]])
    assert hits(losses).tolist() == [[0, 0, 1]]
    assert hits(less_average(losses)).tolist() == [[1, 1, 1]]


def measured(model: Transfusion, tokenizer: TextTokenizer, documents: list[ImageDocument], size: int) -> Results:
    settings = RetrievalConfig(group_size=size, num_groups=3, noise_levels=LEVELS)
    # Nothing here is decoded.
    target = EvaluationTarget(model, None, tokenizer)  # type: ignore[arg-type]
    results = Results()
    measure_retrieval(results, target, HeldOut([], documents), dataclasses.replace(CONFIG, retrieval=settings))
    return results


@pytest.mark.parametrize("number", [0, 1, 3])
def test_too_few_captions_are_a_note_and_no_figure(
    number: int, model: Transfusion, config: ModelConfig, tokenizer: TextTokenizer
) -> None:
    results = measured(model, tokenizer, documents_of(config, [[20 + each] for each in range(number)]), size=4)
    assert results.metrics == {}
    assert len(results.notes) == 1
    assert "evaluate.retrieval.group_size = 4" in results.notes[0]


NUM_KINDS = 6
# Steps after which the model is looked at: a second or two.
HALF, NUM_STEPS = 20, 180


class Trained(NamedTuple):
    """A model on its way, and what it is asked about."""

    half: Transfusion
    whole: Transfusion
    held_out: list[ImageDocument]


def of_a_kind(config: ModelConfig, kind: int, number: int) -> ImageDocument:
    """A latent that is the caption's, but for some noise."""
    prototype, noise = np.random.default_rng(kind).normal(size=(1, 4, 4, 4)), np.random.default_rng([kind, number])
    made = document(config, number, [20 + kind, 40], str(kind))
    latents = (prototype + 0.4 * noise.normal(size=prototype.shape)).astype(np.float32)
    name = f"{kind}/{number}"
    return made._replace(name=name, stored=Stored(made.stored.ids, latents), pictures=(name.encode(),))


@pytest.fixture(scope="module")
def trained(config: ModelConfig) -> Trained:
    torch.manual_seed(1)
    model = Transfusion(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    stages = []
    for step in range(NUM_STEPS):
        made = [of_a_kind(config, kind, 100 + step) for kind in range(NUM_KINDS)]
        rows = [one.stored for one in made] + [before(config, one, one) for one in made]
        loss = loss_sums(model, rows_of(rows, config), SEED, step, PLAIN)
        (loss.text / loss.num_tokens + 5 * loss.image / loss.num_values).backward()
        optimiser.step()
        optimiser.zero_grad()
        if step + 1 in (HALF, NUM_STEPS):
            stages.append(copy.deepcopy(model).eval())
    return Trained(stages[0], stages[1], [of_a_kind(config, kind, number) for kind in range(NUM_KINDS) for number in range(3)])


BOTH = ("retrieval/caption_at_1", "retrieval/image_at_1")


def test_a_half_trained_model_scores_between_chance_and_a_trained_one(trained: Trained, tokenizer: TextTokenizer) -> None:
    half, whole = (measured(model, tokenizer, trained.held_out, NUM_KINDS).metrics for model in (trained.half, trained.whole))
    print(half, whole)
    assert whole["retrieval/chance"] == pytest.approx(1 / NUM_KINDS)
    for key in BOTH:
        assert whole[key] > 0.9
        assert half[key] < whole[key] - 0.2


def test_captions_of_others_and_noise_for_pictures_score_no_better_than_chance(
    trained: Trained, tokenizer: TextTokenizer
) -> None:
    held_out, size = trained.held_out, len(trained.held_out)
    of_others = [held_out[(number + 3) % size] for number in range(size)]
    shuffled = [
        one._replace(stored=Stored(other.stored.ids, one.stored.latents), caption=other.caption)
        for one, other in zip(held_out, of_others, strict=True)
    ]
    noisy = [
        one._replace(stored=Stored(one.stored.ids, np.random.default_rng(number).normal(size=(1, 4, 4, 4)).astype(np.float32)))
        for number, one in enumerate(held_out)
    ]
    for documents, most in ((shuffled, 0.1), (noisy, 0.5)):
        found = measured(trained.whole, tokenizer, documents, NUM_KINDS)
        print(found.metrics)
        assert max(found.metrics[key] for key in BOTH) < most
