"""Checks of what training would fail on later, before a run is opened and before any process is started."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from components.runtime.cluster import check_cluster
from components.training.transformer.config import TrainConfig
from components.training.transformer.pretrained import check_pretrained
from components.training.transformer.state import configuration
from core.errors import BadInput
from core.manifest import manifest_of
from core.tokenizer import load_tokenizer

# The beginnings of the document and of the image that follows the prompt.
NUM_TOKENS_AROUND = 2
# What torch looks for before it compiles FlexAttention to FlashAttention 4.
FLASH = "flash_attn.cute"


class Facts(NamedTuple):
    """Of the rows' manifest, what a model has to know of them."""

    latent_shape: tuple[int, ...]
    vocab_size: int
    row_length: int
    special_ids: Mapping[str, int]


def check_training(
    config: TrainConfig, *, latents: Path, tokenizer: Path, autoencoder: Path, num_workers: int, start: Path | None = None
) -> None:
    """Raise BadInput, in one sentence, where `config` does not go with the rows, the tokenizer or the machine, or
    where the cluster to join is not there. start: the folder of the weights to begin with.

    The rows' bytes are checked by the workers, which read them.
    """
    if config.batch_rows < num_workers:
        raise BadInput(
            f"train.batch_rows {config.batch_rows} leaves some of the {num_workers} workers without a row; raise it, or set "
            "TRANSFUSION_NUM_WORKERS"
        )
    facts = manifest_of(latents, kind="latents")
    if facts["patch_side"] != config.model.patch_side:
        raise BadInput(
            f"{latents} was packed for patch_side {facts['patch_side']}, and train.model.patch_side is "
            f"{config.model.patch_side}; run `dvc repro encode`"
        )
    for split in ("train", "validation"):
        if not facts.get("num_rows", {}).get(split, 1):
            raise BadInput(f"{latents} has no rows of the {split} split; give ingest documents for it and run `dvc repro`")
    _check_tokens(config, latents, facts, tokenizer)
    if start is not None:
        data = Facts(**{name: facts[name] for name in Facts._fields})
        check_pretrained(start, configuration(config, data), tokenizer=tokenizer, autoencoder=autoencoder)
    _check_compiler(config)
    _check_flash(config)
    check_cluster()


def _check_tokens(config: TrainConfig, latents: Path, facts: Mapping[str, Any], tokenizer: Path) -> None:
    words = load_tokenizer(tokenizer)
    if (words.vocab_size, words.special_ids) != (facts["vocab_size"], facts["special_ids"]):
        raise BadInput(
            f"{latents} was encoded with a vocabulary of {facts['vocab_size']} tokens, and {tokenizer} has {words.vocab_size} "
            "or other control tokens; run `dvc repro encode`"
        )
    _, height, width = facts["latent_shape"]
    around = height * width // facts["patch_side"] ** 2 + NUM_TOKENS_AROUND
    for number, prompt in enumerate(config.sampling.prompts):
        if (needed := len(words.encode(prompt)) + around) > facts["row_length"]:
            raise BadInput(
                f"train.sampling.prompts.{number} takes {needed} positions with its picture, over the {facts['row_length']} of "
                "a row; shorten it"
            )


def _check_flash(config: TrainConfig) -> None:
    """Where nothing is compiled to it, nobody asks for it."""
    if config.flex_attention == "flash" and not _is_importable(FLASH):
        raise BadInput(
            f"train.flex_attention is flash, and {FLASH} (the package flash-attn 4) is not installed; install it, or set "
            "train.flex_attention to triton"
        )


def _is_importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:  # of a package above it
        return False


def _check_compiler(config: TrainConfig) -> None:
    """torch.compile makes C++ on a CPU; on a GPU it brings its own compiler."""
    import torch

    compiler = os.environ.get("CXX", "g++")
    if config.compile == "on" and not torch.cuda.is_available() and not shutil.which(compiler):
        raise BadInput(f"train.compile is on, and {compiler} is not installed; install it, or set train.compile to off")
