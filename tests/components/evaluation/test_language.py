"""Bits are counted rightly: the n-gram against its formula, the model against a loop over single tokens."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.evaluation.held_out import Stored, TextDocument
from components.evaluation.language import (
    ByteNgram,
    joined_bytes,
    model_bits_per_byte,
    ngram_bits_per_byte,
    num_predicted_tokens,
    ppmd_bits_per_byte,
    xz_bits_per_byte,
    zstd_bits_per_byte,
)
from core.tokenizer import TextTokenizer
from model.config import ModelConfig
from model.generation.eager import TorchEngine
from model.step import StepInputs
from model.transfusion import Transfusion

TEXTS = ["a red three top left", "bottom right: blue seven; naïve", "x"]


def kneser_ney(text: bytes, order: int, context: bytes, following: int) -> float:
    """The probability straight from the definition, with dictionaries and recursion."""
    grams = [text[i : i + order] for i in range(len(text) - order + 1)]

    def counts(length: int) -> Counter[bytes]:
        if length == order:
            return Counter(grams)
        # The distinct longer grams that end in each shorter one.
        return Counter(longer[1:] for longer in counts(length + 1))

    def probability(length: int) -> float:
        if length == 0:
            return 1 / 256
        table = counts(length)
        once, twice = sum(v == 1 for v in table.values()), sum(v == 2 for v in table.values())
        discount = once / (once + 2 * twice) if once else 0.5
        prefix = context[len(context) - (length - 1) :]
        after: dict[int, int] = defaultdict(int, {gram[-1]: n for gram, n in table.items() if gram[:-1] == prefix})
        shorter = probability(length - 1)
        total = sum(after.values())
        if not total:
            return shorter
        return (max(after[following] - discount, 0) + discount * len([n for n in after.values() if n]) * shorter) / total

    return probability(order)


def stored(config: ModelConfig, ids: list[int]) -> Stored:
    return Stored(np.array(ids, np.int64), np.zeros((0, 4, 4, 4), np.float32))


def documents(tokenizer: TextTokenizer, config: ModelConfig) -> list[TextDocument]:
    streams = [[config.bos_token_id, *tokenizer.encode(text), config.eos_token_id] for text in TEXTS]
    return [
        TextDocument(f"c/{number}", text, (stored(config, ids),))
        for number, (text, ids) in enumerate(zip(TEXTS, streams, strict=True))
    ]


def nats_token_by_token(model: Transfusion, ids: list[int]) -> float:
    """Feed one token after the other through a cache and sum what each next one costs."""
    engine = TorchEngine(model)
    cache = engine.new_cache(1)
    total = 0.0
    for at, (token, following) in enumerate(pairwise(ids)):
        column = torch.tensor([[at]])
        inputs = StepInputs(
            input_ids=torch.tensor([[token]]),
            patches=torch.zeros(1, 1, model.config.patch_dim),
            token_type_ids=torch.zeros(1, 1, dtype=torch.long),
            time=torch.zeros(1),
            position_ids=column,
            kv_end=column,
            cache_position=column[0],
            logits_index=torch.zeros(1, dtype=torch.long),
            kv_length=at + 1,
            grids=((),),
        )
        logits = engine.step(inputs, cache, slice(0, 1)).logits[0].double()
        total -= float(torch.log_softmax(logits, dim=0)[following])
    return total


def test_ngram_probabilities_sum_to_one() -> None:
    rng = np.random.default_rng(3)
    text = bytes(rng.integers(97, 103, 3000, dtype=np.uint8))
    model = ByteNgram(text)
    seen = [text[i : i + 4] for i in rng.integers(0, 2900, 20)]
    unseen = [bytes(rng.integers(0, 256, 4, dtype=np.uint8)) for _ in range(20)]
    for context in [*seen, *unseen]:
        contexts = np.tile(np.frombuffer(context, np.uint8), (256, 1))
        assert model.probability(contexts, np.arange(256, dtype=np.uint8)).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_ngram_is_interpolated_kneser_ney(order: int) -> None:
    text = b"the cat sat on the mat; the rat sat on the cat and that was that"
    model = ByteNgram(text, order=order)
    for context in (b"the ", b"hat ", b"zzzz", b" sat", b"o th"):
        prefix = context[len(context) - (order - 1) :]
        for following in b"atmr z\x00":
            got = model.probability(np.frombuffer(prefix, np.uint8).reshape(1, -1), np.array([following], np.uint8))[0]
            assert got == pytest.approx(kneser_ney(text, order, context, following), rel=1e-12)


def test_ngram_bits_are_those_of_its_probabilities() -> None:
    train, held_out = b"abcabcabcabdabc" * 5, b"abdab"
    padded = b"\n\n\n\n" + held_out
    bits = [-math.log2(kneser_ney(train, 5, padded[i : i + 4], padded[i + 4])) for i in range(len(held_out))]
    assert ngram_bits_per_byte(train, held_out) == pytest.approx(sum(bits) / len(bits))


def test_ngram_is_quick_on_two_megabytes() -> None:
    rng = np.random.default_rng(0)
    words = [bytes(rng.integers(97, 123, rng.integers(2, 9), dtype=np.uint8)) for _ in range(3000)]
    text = b" ".join(words[i] for i in rng.zipf(1.3, 400_000) % len(words))[:2_060_000]
    started_s = time.process_time()
    bits = ngram_bits_per_byte(text[:2_000_000], text[2_000_000:])
    print(f"{time.process_time() - started_s:.1f} s, {bits:.3f} bits per byte")
    assert 0 < bits < xz_bits_per_byte(text[2_000_000:])
    assert time.process_time() - started_s < 20


def test_xz_counts_its_container() -> None:
    noise = np.random.default_rng(1).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    assert 8 < xz_bits_per_byte(noise) < 8.3
    assert xz_bits_per_byte(b"ab" * 20000) < 0.1
    assert joined_bytes(["a", "é"]) == b"a\n\n\xc3\xa9"


def test_compressors_keep_every_byte_and_the_one_that_predicts_needs_fewest() -> None:
    prose = (joined_bytes([ByteNgram.__doc__ or "", kneser_ney.__doc__ or ""]) + Path(__file__).read_bytes())[:6000]
    zstd = pa.Codec("zstd", compression_level=19).compress(prose, asbytes=True)
    assert zstd_bits_per_byte(prose) == len(zstd) * 8 / len(prose)
    assert pa.Codec("zstd").decompress(zstd, len(prose), asbytes=True) == prose
    assert ppmd_bits_per_byte(prose) < 0.95 * min(zstd_bits_per_byte(prose), xz_bits_per_byte(prose))
    noise = np.random.default_rng(1).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    for bits_per_byte in (zstd_bits_per_byte, ppmd_bits_per_byte):
        assert 8 < bits_per_byte(noise) < 9.5
        assert bits_per_byte(b"ab" * 20000) < 0.1


def test_model_bits_are_those_of_single_tokens(tokenizer: TextTokenizer, config: ModelConfig, model: Transfusion) -> None:
    held_out = documents(tokenizer, config)
    nats = [nats_token_by_token(model, document.pieces[0].ids.tolist()) for document in held_out]
    wanted = sum(nats) / math.log(2) / sum(len(text.encode()) for text in TEXTS)
    for max_positions in (1, 8192):
        value, items = model_bits_per_byte(model, held_out, max_positions=max_positions)
        assert value == pytest.approx(wanted, rel=1e-5)
        assert items.top.tolist() == pytest.approx([each / math.log(2) for each in nats], rel=1e-5)
        assert items.bottom.tolist() == [len(text.encode()) for text in TEXTS]
        assert items.names == tuple(document.name for document in held_out)


def test_uniform_logits_cost_the_vocabulary(tokenizer: TextTokenizer, config: ModelConfig, model: Transfusion) -> None:
    with torch.no_grad():
        model.head.weight.zero_()
    num_predicted = sum(len(tokenizer.encode(text)) + 1 for text in TEXTS)
    assert num_predicted == sum(map(num_predicted_tokens, documents(tokenizer, config)))
    wanted = num_predicted * math.log2(config.vocab_size) / sum(len(text.encode()) for text in TEXTS)
    assert model_bits_per_byte(model, documents(tokenizer, config))[0] == pytest.approx(wanted, rel=1e-6)


def test_pieces_of_a_cut_text_count_every_token_once(tokenizer: TextTokenizer, config: ModelConfig, model: Transfusion) -> None:
    ids = [config.bos_token_id, *tokenizer.encode(TEXTS[1]), config.eos_token_id]
    cut = TextDocument("c/1", TEXTS[1], (stored(config, ids[:4]), stored(config, ids[3:])))
    with torch.no_grad():
        model.head.weight.zero_()
    assert num_predicted_tokens(cut) == len(ids) - 1
    wanted = (len(ids) - 1) * math.log2(config.vocab_size) / len(TEXTS[1].encode())
    value, items = model_bits_per_byte(model, [cut])
    assert value == pytest.approx(wanted, rel=1e-6)
    assert items.top.tolist() == pytest.approx([(len(ids) - 1) * math.log2(config.vocab_size)], rel=1e-6)
