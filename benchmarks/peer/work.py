"""The work that both sides do: the sizes and documents of the comparison, and the figures made from them.

Read by both environments, so it needs torch and the standard library alone. A position is a text token or a patch; markers,
which each side has its own of, and padding count for neither.

Legend: n text tokens, Y/X patches along the axes of an image, W numbers in a patch.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Precision = Literal["fp32", "bf16"]
LEARNING_RATE = 1e-4


class Size(NamedTuple):
    """Of the transformer that both sides build; patch_dim: numbers in a patch."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    patch_dim: int


# Numbers of text tokens, and the patches along both axes of images.
Document = tuple[int | tuple[int, int], ...]


class ImageWork(NamedTuple):
    """Text -> image. evaluations: of the network for an image, and as many again for its unguided twin."""

    num_prompts: int
    prompt_length: int
    grid: tuple[int, int]
    guidance_scale: float
    evaluations: int


class TextWork(NamedTuple):
    """Greedy decoding with a cache, all rows of one length."""

    num_rows: int
    prompt_length: int
    new_tokens: int


class Work(NamedTuple):
    """documents: of a training step, by name. row_length: of the rows that documents are packed into, by name.

    compiled: whether our side compiles its blocks. square: side of the matrices whose product is the machine's rate.
    matmul_seconds: how long each rate is measured.
    """

    size: Size
    documents: dict[str, tuple[Document, ...]]
    row_length: dict[str, int]
    image: ImageWork
    text: TextWork
    compiled: bool
    square: int
    matmul_seconds: float


def ragged(shortest: int, longest: int, number: int, grid: tuple[int, int]) -> tuple[Document, ...]:
    """Documents of evenly spread lengths; each holds an image for every two images' worth of positions."""
    num_patches = grid[0] * grid[1]
    documents = []
    for index in range(number):
        length = shortest + round(index * (longest - shortest) / (number - 1))
        num_images = length // (2 * num_patches)
        num_text = length - num_images * num_patches
        texts = [num_text // max(num_images, 1)] * max(num_images, 1)
        texts[-1] += num_text - sum(texts)
        document: list[int | tuple[int, int]] = []
        for text in texts:
            document += [text, grid] if num_images else [text]
        documents.append(tuple(document))
    return tuple(documents)


# Work S of the README, and a toy of the same form for tests.
FULL = Work(
    size=Size(hidden_size=512, num_hidden_layers=8, num_attention_heads=8, vocab_size=8192, patch_dim=32),
    documents={"equal": ((64, (16, 16)),) * 4, "ragged": ragged(16, 1024, 4, (16, 16))},
    row_length={"equal": 324, "ragged": 1088},
    image=ImageWork(num_prompts=4, prompt_length=64, grid=(16, 16), guidance_scale=3.0, evaluations=18),
    text=TextWork(num_rows=8, prompt_length=64, new_tokens=128),
    compiled=True,
    square=2048,
    matmul_seconds=0.5,
)
QUICK = Work(
    size=Size(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=256, patch_dim=8),
    documents={"equal": ((8, (4, 4)),) * 2, "ragged": ragged(4, 64, 4, (4, 4))},
    row_length={"equal": 28, "ragged": 80},
    image=ImageWork(num_prompts=2, prompt_length=8, grid=(4, 4), guidance_scale=3.0, evaluations=4),
    text=TextWork(num_rows=2, prompt_length=8, new_tokens=6),
    # Compiling takes longer than the toy does.
    compiled=False,
    square=512,
    matmul_seconds=0.02,
)


def make_documents(work: Work, name: str) -> list[list[Tensor]]:
    """The documents `name`: text as int64 [n], images as float32 [Y, X, W]; the same on both sides."""
    generator = torch.Generator().manual_seed(0)

    def segment(part: int | tuple[int, int]) -> Tensor:
        if isinstance(part, int):
            return torch.randint(FIRST_WORD, work.size.vocab_size, (part,), generator=generator)
        return torch.randn(*part, work.size.patch_dim, generator=generator)

    return [[segment(part) for part in document] for document in work.documents[name]]


# Ids below are markers on our side; neither side's documents use them.
FIRST_WORD = 8


def make_prompts(work: Work, number: int, length: int) -> Tensor:
    """int64 [number, length]."""
    return torch.randint(FIRST_WORD, work.size.vocab_size, (number, length), generator=torch.Generator().manual_seed(1))


def count_positions(work: Work, name: str) -> int:
    """Text tokens and patches of the documents `name`."""
    return sum(part if isinstance(part, int) else part[0] * part[1] for each in work.documents[name] for part in each)


class Series(NamedTuple):
    """What is measured again and again: the worker asked, its handler, and the question.

    warm_up: what of the question differs the first time, which is not counted; None where nothing needs warming.
    """

    side: Literal["ours", "theirs"]
    do: str
    question: dict[str, Any]
    warm_up: dict[str, Any] | None


def _train(documents: str, precision: Precision, our_steps: int) -> dict[str, Series]:
    # Ours takes a fraction of the time: several steps to a measurement even out what a scheduler does to short ones.
    question = {"documents": documents, "precision": precision}
    # Equal documents warm up for ragged ones too: a step of the peer's on those may take most of a minute.
    return {
        "ours": Series("ours", "train", {**question, "steps": our_steps}, {"steps": 1}),
        "theirs": Series("theirs", "train", {**question, "steps": 1}, {"documents": "equal"}),
    }


def _same_params(precision: Precision) -> dict[str, Series]:
    question = {"documents": "equal", "precision": precision, "steps": 1, "model": "same_params"}
    return {"ours_same_params": Series("ours", "train", question, {})}


def _generate(do: str) -> dict[str, Series]:
    """Both sides in both precisions."""
    return {
        f"{side}{suffix}": Series(side, do, {"precision": precision}, {"warm_up": True})
        for precision, suffix in (("bf16", ""), ("fp32", "_fp32"))
        for side in ("ours", "theirs")
    }


# Series of one group are measured in turn, one after the other, round after round.
GROUPS: dict[str, dict[str, Series]] = {
    "train_fp32": {**_train("equal", "fp32", 2), **_same_params("fp32")},
    "train_bf16": {**_train("equal", "bf16", 3), **_same_params("bf16"), "matmul": Series("ours", "matmul", {}, None)},
    "train_ragged": _train("ragged", "fp32", 1),
    "train_ragged_bf16": _train("ragged", "bf16", 1),
    "image": _generate("image"),
    "text": _generate("text"),
}


class Figure(NamedTuple):
    """The median rate of one series over another's, both of `group`, counted in `unit` a second.

    below: several where the fastest of them is meant.
    """

    group: str
    unit: Literal["tokens", "images", "flops"]
    above: str = "ours"
    below: tuple[str, ...] = ("theirs",)


FIGURES: dict[str, Figure] = {
    "train_fp32": Figure("train_fp32", "tokens"),
    "train_bf16": Figure("train_bf16", "tokens"),
    "train_same_params_fp32": Figure("train_fp32", "tokens", above="ours_same_params"),
    "train_same_params_bf16": Figure("train_bf16", "tokens", above="ours_same_params"),
    "train_ragged": Figure("train_ragged", "tokens"),
    "image": Figure("image", "images"),
    "image_fp32": Figure("image", "images", above="ours_fp32", below=("theirs_fp32",)),
    "text": Figure("text", "tokens"),
    "text_fp32": Figure("text", "tokens", above="ours_fp32", below=("theirs_fp32",)),
    "text_against_peers_best": Figure("text", "tokens", below=("theirs", "theirs_fp32")),
    "matmul_share": Figure("train_bf16", "flops", below=("matmul",)),
    # Not of the README's table; measured when named, or with --all.
    "train_ragged_bf16": Figure("train_ragged_bf16", "tokens"),
}
EXTRA = ("train_ragged_bf16",)
