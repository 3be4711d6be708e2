"""Words that a caption shares with its references: BLEU-4, ROUGE-L and exact match.

Legend: N pictures, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from components.evaluation.captions.words import Words

ORDER = 4
# Of recall over precision, as in COCO's caption evaluation.
BETA = 1.2


def exact_match(candidate: Words, references: Sequence[Words]) -> bool:
    """Whether the candidate is one of the references, word for word."""
    return candidate in references


def rouge_l(candidate: Words, references: Sequence[Words]) -> float:
    """F measure of the longest common subsequence, 0..1: the best precision and the best recall over the references.

    Lin 2004, with COCO's choice of weight, and of references for the two apart.
    """
    common = [longest_common(candidate, reference) for reference in references]
    precision = max(common) / max(len(candidate), 1)
    recall = max(length / max(len(reference), 1) for length, reference in zip(common, references, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if precision else 0.0


def longest_common(one: Words, other: Words) -> int:
    """Words of their longest common subsequence."""
    # Hyyro 2004: a column of the table as the bits of one number, where a 0 marks that the length grows by one there.
    at = {word: sum(1 << place for place, each in enumerate(one) if each == word) for word in set(one)}
    all_ones = column = (1 << len(one)) - 1
    for word in other:
        matches = column & at.get(word, 0)
        column = ((column + matches) | (column - matches)) & all_ones
    return len(one) - column.bit_count()


def bleu_counts(candidate: Words, references: Sequence[Words]) -> list[int]:
    """What BLEU-4 sums over pictures: n-grams that match and all of the candidate for n of 1 to 4, its words, and those of the
    reference nearest in length."""
    scorer = BLEU(tokenize="none", smooth_method="none", effective_order=True)
    score = scorer.sentence_score(" ".join(candidate), [" ".join(reference) for reference in references])
    return [*score.counts, *score.totals, score.sys_len, score.ref_len]


def bleu(counts: np.ndarray) -> np.ndarray:
    """BLEU-4 of sums of `bleu_counts`, int64 [R, 10] -> 0..1, float64 [R]; 0 where no four words in succession match."""
    return np.array(
        [
            BLEU.compute_bleu(sums[:ORDER], sums[ORDER : 2 * ORDER], sums[-2], sums[-1], smooth_method="none").score / 100
            for sums in counts.tolist()
        ]
    )
