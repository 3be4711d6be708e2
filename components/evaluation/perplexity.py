"""Perplexity of held-out prose: how many tokens the model hesitates between, on average, at each one.

Of the same sums as the bits per byte. It depends on the tokenizer, so that it compares models of one tokenizer alone.
"""

from __future__ import annotations

import numpy as np

from components.evaluation.config import EvaluateConfig
from components.evaluation.held_out import HeldOut
from components.evaluation.intervals import interval
from components.evaluation.language import num_predicted_tokens
from components.evaluation.results import Results

BITS_PER_BYTE, PERPLEXITY = "text/bits_per_byte", "text/perplexity"


def measure_perplexity(results: Results, held_out: HeldOut, config: EvaluateConfig) -> None:
    """Enter it where the bits per byte were measured."""
    if BITS_PER_BYTE not in results.items:
        return
    num_tokens = np.array([num_predicted_tokens(document) for document in held_out.texts])
    bits, num_bytes = results.items[BITS_PER_BYTE].top, results.items[BITS_PER_BYTE].bottom
    results.metrics[PERPLEXITY] = float(2 ** (results.metrics[BITS_PER_BYTE] * num_bytes.sum() / num_tokens.sum()))
    # Not a ratio of sums but a power of one, so it has no items of its own.
    found = interval(lambda indices: 2 ** (bits[indices].sum(-1) / num_tokens[indices].sum(-1)), len(bits), config.seed)
    results.intervals |= {PERPLEXITY: found} if found else {}
