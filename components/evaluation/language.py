"""Bits per byte of held-out text, beside compressors' and a 5-gram's on the same text.

Bits per byte does not depend on the tokenizer, so models with other vocabularies, compressors and byte models compare.
- The model codes each document alone: [bos] text [eos]. Every text token and the eos are counted, the bos is given;
  the sum is divided by the UTF-8 bytes of the texts alone, so the eos counts against the model.
- xz, zstd, PPMd and the 5-gram code the documents joined by blank lines, which they may look back over; their sums are divided
  by the bytes of that joined text. Containers (xz's header, index and checksum) are counted.

Legend: N contexts, K bytes of a context.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyppmd

from components.evaluation.held_out import TextDocument
from components.evaluation.intervals import Items, items_of
from components.evaluation.likelihood import text_nats
from model.transfusion import Transfusion

SEPARATOR = "\n\n"
ORDER = 5


class _Grams(NamedTuple):
    """What one order counted: sorted keys of contexts followed by a byte, sorted keys of contexts, and the discount."""

    keys: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    kinds: np.ndarray
    discount: float


def model_bits_per_byte(
    model: Transfusion, documents: Sequence[TextDocument], *, max_positions: int = 8192
) -> tuple[float, Items]:
    """Bits the model needs for every text token and eos, divided by the texts' bytes (see the head of this file).

    Beside it what each document adds: the same bits but for the order in which they are summed.
    """
    pieces = [piece for document in documents for piece in document.pieces]
    nats = text_nats(model, pieces, max_positions=max_positions)
    document_of = np.repeat(np.arange(len(documents)), [len(document.pieces) for document in documents])
    bits = np.bincount(document_of, nats.by_document, minlength=len(documents)) / math.log(2)
    num_bytes = [len(document.text.encode()) for document in documents]
    return nats.total / math.log(2) / sum(num_bytes), items_of([document.name for document in documents], bits, num_bytes)


def joined_bytes(texts: Sequence[str]) -> bytes:
    """The UTF-8 bytes of the texts with a blank line between any two: what compressors and the 5-gram read."""
    return SEPARATOR.join(texts).encode()


def xz_bits_per_byte(data: bytes) -> float:
    """Bits per byte of `xz -9`, container counted."""
    return len(lzma.compress(data, preset=9)) * 8 / len(data)


def zstd_bits_per_byte(data: bytes) -> float:
    """Bits per byte of one zstd frame at level 19, as `zstd -19` makes it but for the checksum."""
    return len(pa.Codec("zstd", compression_level=19).compress(data, asbytes=True)) * 8 / len(data)


def ppmd_bits_per_byte(data: bytes) -> float:
    """Bits per byte of PPMd, variant H as 7-Zip has it, at its highest level's order of 32: it predicts byte by byte, where the
    others look for repeats."""
    # More memory than this changes nothing before the model has filled it, which takes some 10 MB of prose.
    encoder = pyppmd.Ppmd7Encoder(32, 256 << 20)
    return len(encoder.encode(data) + encoder.flush()) * 8 / len(data)


def num_predicted_tokens(document: TextDocument) -> int:
    """Its text tokens and eos, that `model_bits_per_byte` counts the bits of: all of its streams but what each begins with."""
    return sum(len(piece.ids) - 1 for piece in document.pieces)


def ngram_bits_per_byte(train: bytes, held_out: bytes, *, order: int = ORDER) -> float:
    """Bits per byte of `held_out` under the byte n-gram of `train`; the text is taken to follow a blank line."""
    model = ByteNgram(train, order=order)
    stream = np.frombuffer(b"\n" * (order - 1) + held_out, np.uint8)
    contexts = np.lib.stride_tricks.sliding_window_view(stream, order)
    return float(-np.log2(model.probability(contexts[:, :-1], contexts[:, -1])).mean())


class ByteNgram:
    """Interpolated Kneser-Ney over bytes (Chen and Goodman 1999, eq. 14), one discount an order, down to uniform bytes.

    The longest order counts occurrences; each shorter one counts in how many different bytes' wake a gram was seen.
    """

    def __init__(self, text: bytes, *, order: int = ORDER) -> None:
        if not 1 <= order <= 7:
            raise ValueError(f"order: {order} must lie in 1..7, so that a gram fits a 64-bit key")
        if len(text) < order:
            raise ValueError(f"text: {len(text)} bytes are fewer than the order {order}")
        self.order = order
        keys, counts = np.unique(
            _keys(np.lib.stride_tricks.sliding_window_view(np.frombuffer(text, np.uint8), order)), return_counts=True
        )
        self._by_length: list[_Grams] = [_grams(keys, counts)]
        for length in range(order - 1, 0, -1):
            keys, counts = np.unique(keys & np.uint64((1 << (8 * length)) - 1), return_counts=True)
            self._by_length.insert(0, _grams(keys, counts))

    def probability(self, contexts: np.ndarray, following: np.ndarray) -> np.ndarray:
        """p(following | context): uint8 [N, order - 1] and uint8 [N] -> float64 [N]."""
        probability = np.full(len(following), 1 / 256)
        for length, grams in enumerate(self._by_length, start=1):
            context = _keys(contexts[:, self.order - length :])
            key = (context << np.uint64(8)) | following.astype(np.uint64)
            total = _lookup(grams.contexts, grams.totals, context)
            kinds = _lookup(grams.contexts, grams.kinds, context)
            count = _lookup(grams.keys, grams.counts, key)
            left_over = grams.discount * kinds * probability
            # An unseen context says nothing; the shorter one's answer stands.
            probability = np.where(
                total > 0, (np.maximum(count - grams.discount, 0) + left_over) / np.maximum(total, 1), probability
            )
        return probability


def _keys(bytes_: np.ndarray) -> np.ndarray:
    """uint8 [N, K] -> uint64 [N], most significant first."""
    keys = np.zeros(len(bytes_), np.uint64)
    for column in range(bytes_.shape[1]):
        keys = (keys << np.uint64(8)) | bytes_[:, column].astype(np.uint64)
    return keys


def _grams(keys: np.ndarray, counts: np.ndarray) -> _Grams:
    contexts, start, kinds = np.unique(keys >> np.uint64(8), return_index=True, return_counts=True)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    # Ney's estimate; a text too small to have singletons keeps a half.
    discount = once / (once + 2 * twice) if once else 0.5
    return _Grams(keys, counts, contexts, np.add.reduceat(counts, start), kinds, discount)


def _lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key, 0 where it is not among the sorted keys."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0).astype(np.float64)
