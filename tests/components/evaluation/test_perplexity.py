"""Perplexity is the same sums as bits per byte, a token."""

from __future__ import annotations

import numpy as np
import pytest

from components.evaluation.held_out import HeldOut
from components.evaluation.intervals import items_of
from components.evaluation.perplexity import measure_perplexity
from components.evaluation.results import Results
from core.tokenizer import TextTokenizer
from model.config import ModelConfig
from tests.components.evaluation.test_language import TEXTS, documents
from tests.components.evaluation.test_suite import CONFIG


def test_tokens_that_are_all_alike_likely_have_their_number_for_perplexity(
    tokenizer: TextTokenizer, config: ModelConfig
) -> None:
    held_out = HeldOut(documents(tokenizer, config), [])
    num_tokens = np.array([len(tokenizer.encode(text)) + 1 for text in TEXTS])
    num_bytes = [len(text.encode()) for text in TEXTS]
    results = Results()
    results.add_items("text/bits_per_byte", items_of(TEXTS, 5 * num_tokens, num_bytes))
    measure_perplexity(results, held_out, CONFIG)
    assert results.metrics["text/perplexity"] == pytest.approx(2**5)
    found = results.intervals["text/perplexity"]
    assert (found.low, found.high) == pytest.approx((2**5, 2**5)) and found.num_items == len(TEXTS)
    # A text that is harder than the others is in some resamples and not in others.
    results.add_items("text/bits_per_byte", items_of(TEXTS, 5 * num_tokens * np.array([2, 1, 1]), num_bytes))
    measure_perplexity(results, held_out, CONFIG)
    wider = results.intervals["text/perplexity"]
    assert wider.low < results.metrics["text/perplexity"] < wider.high <= 2**10 + 1e-9


def test_no_prose_has_no_perplexity() -> None:
    results = Results()
    measure_perplexity(results, HeldOut([], []), CONFIG)
    assert not results.metrics and not results.intervals
