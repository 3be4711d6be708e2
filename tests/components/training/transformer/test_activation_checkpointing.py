"""Activations that are computed again are fewer in memory, and the gradients are the same bits."""

from __future__ import annotations

import copy
import dataclasses
import gc
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from components.training.transformer.activation_checkpointing import ActivationCheckpointing, checkpoint_activations
from components.training.transformer.config import TrainConfig
from components.training.transformer.state import configuration
from model.batch import Batch
from model.compiled import compile_for_training
from model.loss import loss_sums
from model.transfusion import Transfusion
from tests.components.training.conftest import CONFIG, Corpus, changed

KINDS: tuple[ActivationCheckpointing, ...] = ("none", "selective", "full")


def model_of(corpus: Corpus, config: TrainConfig) -> Transfusion:
    torch.manual_seed(3)
    return Transfusion(configuration(config, corpus.rows("train"))).train()


def batch_of(corpus: Corpus) -> Batch:
    rows = corpus.rows("train")
    return rows.batch(
        list(range(4)), step=1, seed=1, patch_side=2, caption_dropout=0.0, resample_latents=False, image_first_time_limit=1.0
    )


def gradients(model: Transfusion, batch: Batch) -> list[Tensor]:
    sums = loss_sums(model, batch, 1, 1, CONFIG.loss)
    (sums.text + sums.image).backward()
    return [each.grad.clone() for each in model.parameters() if each.grad is not None]


class Storages(TorchDispatchMode):
    """Notes what operations make, without keeping it alive."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, Tensor):
                self.made[StorageWeakRef(each.untyped_storage())] = each.untyped_storage().nbytes()
        return out

    def alive(self) -> int:
        """Bytes."""
        gc.collect()
        return sum(size for storage, size in self.made.items() if not storage.expired())


def kept_bytes(model: Transfusion, batch: Batch) -> int:
    """Of what a forward pass leaves to the backward pass."""
    with Storages() as storages:
        sums = loss_sums(model, batch, 1, 1, CONFIG.loss)
    assert sums.text.requires_grad
    return storages.alive()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("experts", ["shared", "full"])
def test_less_is_kept_and_the_gradients_are_the_same_bits(corpus: Corpus, experts: str, precision: torch.dtype) -> None:
    config = changed(model=dataclasses.replace(CONFIG.model, experts=experts, qk_norm=True))
    plain, batch, kept, found = model_of(corpus, config), batch_of(corpus), [], []
    for kind in KINDS:
        model = copy.deepcopy(plain)
        checkpoint_activations(model, kind)
        assert list(model.state_dict()) == list(plain.state_dict())
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            kept.append(kept_bytes(model, batch))
            found.append(gradients(model, batch))
    assert kept[0] > 1.2 * kept[1] and kept[1] > 1.2 * kept[2], kept
    assert len(found[0]) == len(list(plain.parameters()))
    for other in found[1:]:
        assert all(torch.equal(one, each) for one, each in zip(found[0], other, strict=True))


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_it_goes_around_what_is_compiled(corpus: Corpus, kind: ActivationCheckpointing) -> None:
    model, batch = model_of(corpus, CONFIG), batch_of(corpus)
    compile_for_training(model, backend="aot_eager")
    plain = copy.deepcopy(model)
    compiled = vars(model.transformer.blocks[0])["qkv"]
    checkpoint_activations(model, kind)
    assert vars(model.transformer.blocks[0])["qkv"] is compiled, "a compiler chooses for itself what it keeps"
    kept = kept_bytes(plain, batch), kept_bytes(model, batch)
    assert kept[1] < 0.8 * kept[0] if kind == "full" else kept[1] == kept[0]
    for one, other in zip(gradients(plain, batch), gradients(model, batch), strict=True):
        assert torch.equal(one, other)


def test_a_copy_runs_its_own_weights_again(corpus: Corpus) -> None:
    model, batch = model_of(corpus, CONFIG), batch_of(corpus)
    checkpoint_activations(model, "full")
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for each in model.transformer.parameters():
            each.zero_()
    plain = model_of(corpus, CONFIG)
    for one, other in zip(gradients(copied, batch), gradients(plain, batch), strict=True):
        assert torch.equal(one, other)
