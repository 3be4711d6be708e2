"""What is measured of captions on a corpus: each picture once against all its captions, and worse where a model is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from components.evaluation.captions.measure import captioned_pictures, measure_captions, note_unmeasured, score
from components.evaluation.held_out import HeldOut, ImageDocument, Stored
from components.evaluation.layout import rows_of
from components.evaluation.metrics import CAPTION_SCORES, metric_of
from components.evaluation.results import EvaluationTarget, Results
from components.evaluation.training_facts import TrainingFacts
from core.png import encode_png
from core.tokenizer import TextTokenizer
from model.config import ModelConfig
from model.diffusion.noise import TimedNoise
from model.latents.autoencoder import Autoencoder
from model.loss import loss_sums_at
from model.loss_options import PLAIN
from model.transfusion import Transfusion
from tests.components.evaluation.captions.examples import BLEU_4, EXAMPLES
from tests.components.evaluation.test_suite import CONFIG

NUM_PICTURES = 12
# Of the toy training, and when it is looked at before its end.
NUM_STEPS, EARLY = 60, 12
PLACES = ("top left", "top right", "bottom left", "bottom right")
CAPTIONS = [
    f"a {colour} {digit} {PLACES[number % 4]}"
    for number, (colour, digit) in enumerate(
        (colour, digit) for colour in ("red", "green", "blue") for digit in ("one", "two", "six", "nine")
    )
]
NOTHING_TRAINED = TrainingFacts([], [], frozenset())


def picture(number: int) -> bytes:
    return encode_png(np.full((8, 8, 3), number, np.uint8))


def document(tokenizer: TextTokenizer, config: ModelConfig, number: int, caption: str, *, copy: int = 0) -> ImageDocument:
    """A picture before its caption. copy: of the documents of one picture."""
    image = config.image
    ids = [config.bos_token_id, image.begin_token_id, image.end_token_id, *tokenizer.encode(caption), config.eos_token_id]
    latents = np.random.default_rng(number).normal(size=(1, 4, 4, 4)).astype(np.float32)
    stored = Stored(np.array(ids, np.int64), latents)
    return ImageDocument(f"c/{number}#{copy}", stored, caption, (picture(number),), None, ())


@pytest.fixture
def documents(tokenizer: TextTokenizer, config: ModelConfig) -> list[ImageDocument]:
    return [document(tokenizer, config, number, caption) for number, caption in enumerate(CAPTIONS)]


def test_a_picture_of_several_documents_is_one_with_all_their_captions(tokenizer: TextTokenizer, config: ModelConfig) -> None:
    given = [(1, "a one"), (2, "a two"), (1, "the one"), (2, "a two"), (1, "one")]
    documents = [document(tokenizer, config, number, text, copy=copy) for copy, (number, text) in enumerate(given)]
    silent = documents[0]._replace(caption=None, pictures=(picture(1), picture(2)))
    one, two = captioned_pictures([silent, *documents])
    assert (one.document, one.references) == (documents[0], ("a one", "the one", "one"))
    assert (two.document, two.references) == (documents[1], ("a two",))


def test_scores_are_means_over_pictures_and_bleu_is_of_all_together(tokenizer: TextTokenizer, config: ModelConfig) -> None:
    documents = [
        document(tokenizer, config, number, text, copy=copy)
        for number, example in enumerate(EXAMPLES)
        for copy, text in enumerate(example.references)
    ]
    results, pictures = Results(), captioned_pictures(documents)
    score(results, "captions", pictures, [example.generated for example in EXAMPLES], seed=1)
    results.find_intervals(1)
    wanted = {
        "captions/cider": np.mean([example.cider for example in EXAMPLES]),
        "captions/rouge_l": np.mean([example.rouge_l for example in EXAMPLES]),
        "captions/bleu4": BLEU_4,
        # The cats and the train.
        "captions/exact": 2 / len(EXAMPLES),
    }
    assert results.metrics == pytest.approx(wanted, rel=1e-8)
    assert results.intervals.keys() == wanted.keys()
    for key, value in wanted.items():
        found = results.intervals[key]
        assert found.low < value < found.high and found.num_items == len(EXAMPLES)


def test_too_few_pictures_and_too_short_captions_have_notes_and_no_figures(
    tokenizer: TextTokenizer, config: ModelConfig
) -> None:
    pictures = captioned_pictures([document(tokenizer, config, number, "a red one") for number in range(2)])
    results = Results()
    score(results, "captions", pictures, ["a red one", "a red two"], seed=1)
    note_unmeasured(results, pictures)
    assert results.metrics == {"captions/exact": 0.5, "captions/rouge_l": pytest.approx(5 / 6)}
    assert len(results.notes) == 2 and "fewer than 10" in results.notes[0] and "BLEU-4" in results.notes[1]


def test_captions_as_long_as_a_row_leave_room_for_no_more(
    target: EvaluationTarget, tokenizer: TextTokenizer, config: ModelConfig
) -> None:
    # Four patches, [bos], [boi], [eoi] and [eos] are the rest of the longest row, and "red" at a beginning is two tokens.
    words = ["red"] * (config.max_position_embeddings - 9)
    long = document(tokenizer, config, 0, " ".join(words))
    assert len(long.stored.ids) + 4 == config.max_position_embeddings
    results = Results()
    measure_captions(results, target, HeldOut([], [long]), NOTHING_TRAINED, CONFIG)
    assert "captions/exact" in results.metrics


def test_no_caption_is_said(target: EvaluationTarget, documents: list[ImageDocument]) -> None:
    results = Results()
    silent = [each._replace(caption=None) for each in documents]
    measure_captions(results, target, HeldOut([], silent), NOTHING_TRAINED, CONFIG)
    assert not results.metrics and not results.captions and len(results.notes) == 1


@pytest.fixture
def target(config: ModelConfig, tokenizer: TextTokenizer) -> EvaluationTarget:
    """An untrained model."""
    torch.manual_seed(4)
    shape = {"layers_per_block": 1, "latent_channels": 4, "norm_groups": 4, "sample_side_px": 32}
    return EvaluationTarget(Transfusion(config), Autoencoder.create(block_channels=(8, 8), **shape).eval(), tokenizer)


def train(model: Transfusion, optimiser: torch.optim.Optimizer, documents: list[ImageDocument], num_steps: int) -> None:
    """On the captions of all documents at once, each after its clean picture."""
    batch = rows_of([each.stored for each in documents], model.config)
    clean = TimedNoise(torch.zeros(len(documents)), torch.zeros_like(batch.latents[0].patches))
    model.train()
    for _ in range(num_steps):
        sums = loss_sums_at(model, batch, [clean], PLAIN)
        (sums.text / sums.num_tokens).backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()


def measured(target: EvaluationTarget, documents: list[ImageDocument]) -> dict[str, float]:
    results = Results()
    config = dataclasses.replace(CONFIG, num_captions=NUM_PICTURES, batch_size=NUM_PICTURES)
    measure_captions(results, target, HeldOut([], documents), NOTHING_TRAINED, config)
    assert len(results.captions) == NUM_PICTURES and not results.notes
    return results.metrics


def test_a_model_half_trained_and_captions_of_other_pictures_score_worse(
    target: EvaluationTarget, documents: list[ImageDocument]
) -> None:
    optimiser = torch.optim.AdamW(target.model.parameters(), lr=3e-3)
    train(target.model, optimiser, documents, EARLY)
    early = measured(target, documents)
    train(target.model, optimiser, documents, NUM_STEPS - EARLY)
    late = measured(target, documents)
    captions = [each.caption for each in documents]
    shuffled = measured(
        target, [each._replace(caption=other) for each, other in zip(documents, captions[5:] + captions[:5], strict=True)]
    )
    assert late == measured(target, documents), "the same model has other figures the second time"
    assert late.keys() == {f"captions/{kind}{name}" for kind in ("", "sampled/") for name in CAPTION_SCORES}
    for key, value in late.items():
        print(f"{key}: {early[key]:.3f} early, {value:.3f} late, {shuffled[key]:.3f} shuffled")
        assert metric_of(key) is not None
        assert early[key] < value > shuffled[key], key
