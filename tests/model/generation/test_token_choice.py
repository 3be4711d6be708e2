"""Tokens are chosen as the definitions of greedy, temperature, top-p and min-p say."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch

from model.generation.token_choice import choose, keep, suppress

INF = float("inf")


def _random_logits(rng: random.Random, num_rows: int, num_tokens: int) -> torch.Tensor:
    """With equal values and barred tokens among them, never a whole row."""
    values = [[rng.choice([-INF, 0.0, 1.5, rng.gauss(0, 3)]) for _ in range(num_tokens)] for _ in range(num_rows)]
    for row in values:
        row[rng.randrange(num_tokens)] = rng.gauss(0, 3)
    return torch.tensor(values, dtype=torch.float64)


def _chances(logits: list[float], temperature: float) -> list[float]:
    weights = [math.exp((logit - max(logits)) / temperature) if logit > -INF else 0.0 for logit in logits]
    return [weight / sum(weights) for weight in weights]


def _kept(chances: list[float], top_p: float, min_p: float) -> set[int]:
    """Straight from the definitions, token by token; of equal chances the earlier token counts as the likelier."""
    nucleus, total = set(), 0.0
    for token in sorted(range(len(chances)), key=lambda token: (-chances[token], token)):
        nucleus.add(token)
        total += chances[token]
        if total >= top_p and top_p < 1:
            break
    return {token for token in nucleus if chances[token] >= min_p * max(chances)}


@pytest.mark.parametrize(("top_p", "min_p"), [(1.0, 0.0), (0.7, 0.0), (0.05, 0.0), (1.0, 0.2), (1.0, 1.0), (0.9, 0.1)])
def test_draws_are_those_of_the_definition(top_p: float, min_p: float, rng: random.Random) -> None:
    for _ in range(30):
        logits = _random_logits(rng, 5, rng.randrange(1, 20))
        temperature = rng.choice([0.5, 1.0, 2.0])
        uniform = torch.tensor([rng.random() for _ in range(5)])
        kept = keep(torch.softmax(logits / temperature, dim=-1), top_p=top_p, min_p=min_p)
        tokens = choose(logits, uniform, temperature=temperature, top_p=top_p, min_p=min_p).tolist()
        for row, token in enumerate(tokens):
            chances = _chances(logits[row].tolist(), temperature)
            wanted = _kept(chances, top_p, min_p)
            # Tokens of chance 0 may stay or go: they are never drawn.
            possible = {each for each in wanted if chances[each] > 0}
            assert {each for each in kept[row].nonzero().flatten().tolist() if chances[each] > 0} == possible
            running = list(itertools.accumulate(chance if each in wanted else 0.0 for each, chance in enumerate(chances)))
            drawn = float(uniform[row]) * running[-1]
            assert token == next(each for each, total in enumerate(running) if total > drawn)


def test_frequencies_are_the_renormalised_chances(rng: random.Random) -> None:
    """A chi-square statistic of 40,000 draws, far below what a wrong temperature or cut gives."""
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -2.0, -8.0, -INF])
    num_draws, temperature, top_p, min_p = 40_000, 1.3, 0.95, 0.04
    generator = torch.Generator().manual_seed(rng.randrange(2**32))
    uniform = torch.rand(num_draws, generator=generator)
    tokens = choose(logits.expand(num_draws, -1), uniform, temperature=temperature, top_p=top_p, min_p=min_p)
    counts = torch.bincount(tokens, minlength=len(logits)).tolist()
    chances = _chances(logits.tolist(), temperature)
    kept = _kept(chances, top_p, min_p)
    assert 2 < len(kept) < 7
    assert all(counts[token] == 0 for token in range(len(logits)) if token not in kept)
    share = sum(chances[token] for token in kept)
    expected = {token: num_draws * chances[token] / share for token in kept}
    statistic = sum((counts[token] - expected[token]) ** 2 / expected[token] for token in kept)
    degrees = len(kept) - 1
    assert statistic < degrees + 12 * math.sqrt(2 * degrees)


def test_temperature_zero_and_tiny_nuclei_take_the_likeliest(rng: random.Random) -> None:
    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(rng.randrange(2**32)))
    uniform = torch.tensor([rng.random() for _ in range(20)])
    likeliest = logits.argmax(-1)
    assert torch.equal(choose(logits, None, temperature=0, top_p=1, min_p=0), likeliest)
    assert torch.equal(choose(logits, uniform, temperature=1.7, top_p=1e-9, min_p=0), likeliest)
    assert torch.equal(choose(logits, uniform, temperature=1.7, top_p=1, min_p=1), likeliest)


@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-24])
def test_the_ends_of_the_uniform_draw_are_possible_tokens(extreme: float) -> None:
    logits = torch.tensor([[-INF, 1.0, 2.0, -INF, 0.0, -INF]])
    token = int(choose(logits, torch.tensor([extreme]), temperature=1.0, top_p=1.0, min_p=0.0))
    assert token == (1 if extreme == 0 else 4)


def test_barred_tokens_are_never_chosen_and_others_keep_their_logits() -> None:
    logits = torch.randn(3, 10)
    tokens = torch.tensor([7, 2, 5])
    suppressed = torch.tensor([[True, False, False], [False, False, False], [True, True, True]])
    left = suppress(logits, tokens, suppressed)
    for row in range(3):
        for token in range(10):
            is_barred = any(suppressed[row, at] and int(tokens[at]) == token for at in range(3))
            assert left[row, token] == (-INF if is_barred else logits[row, token])


def test_logits_that_are_no_numbers_still_give_tokens_of_the_vocabulary() -> None:
    logits, uniform = torch.full((2, 7), float("nan")), torch.tensor([0.0, 0.9])
    for temperature in (0.0, 1.0):
        chosen = choose(logits, uniform, temperature=temperature, top_p=1.0, min_p=0.0)
        assert bool(((chosen >= 0) & (chosen < 7)).all())
