"""The parts of a step's arithmetic one by one: what a larger vocabulary, another layer and longer rows add."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.flops import step_flops
from model.loss import loss_sums
from model.loss_options import PLAIN
from model.transfusion import Transfusion
from tests.model.conftest import pack, random_document, tiny_config


def test_a_larger_vocabulary_adds_what_torch_counts(rng: random.Random) -> None:
    document = random_document(rng, 2)
    counted, whole = [], []
    for vocab_size in (64, 1600):
        model = Transfusion(tiny_config(vocab_size=vocab_size))
        batch = pack([[document]], model.config, len(document) + 3)
        with FlopCounterMode(display=False) as counter:
            sums = loss_sums(model, batch, 0, 0, PLAIN)
            (sums.text + sums.image).backward()
        whole.append(counter.get_total_flops())
        counted.append(step_flops(model, batch, len(document)))
    assert counted[1] - counted[0] == whole[1] - whole[0] > 0


def test_every_visible_pair_adds_two_products_a_layer(rng: random.Random) -> None:
    """One batch twice, once with all before each position in its sight: by hand, for torch computes hidden pairs too."""
    model = Transfusion(tiny_config())
    batch = pack([[random_document(rng, 1), random_document(rng, 0)]], model.config, 60)
    used = int(batch.used(model.config.pad_token_id).sum())
    wider = batch._replace(kv_start=torch.zeros_like(batch.kv_start))
    pairs = int((batch.kv_start - wider.kv_start)[batch.used(model.config.pad_token_id)].sum())
    assert pairs > 0
    # Padding sees itself alone in both.
    padding = ~batch.used(model.config.pad_token_id)
    wider.kv_start[padding] = batch.kv_start[padding]
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    added = step_flops(model, wider, used) - step_flops(model, batch, used)
    assert added == 3 * 2 * 2 * layers * width * pairs


@pytest.mark.parametrize("experts", ["shared", "feed_forward", "full"])
def test_a_layer_costs_its_weights_at_every_position(experts: str, rng: random.Random) -> None:
    document = random_document(rng, 1)
    costs = []
    for num_hidden_layers in (1, 3):
        config = dataclasses.replace(tiny_config(), num_hidden_layers=num_hidden_layers, experts=experts)
        batch = pack([[document]], config, len(document))
        costs.append(step_flops(Transfusion(config), batch, len(document)))
        pairs = int((batch.kv_end - batch.kv_start + 1).sum())
    config = tiny_config()
    weights = 4 * config.hidden_size**2 + 3 * config.hidden_size * config.intermediate_size
    assert costs[1] - costs[0] == 2 * 6 * (weights * len(document) + 2 * config.hidden_size * pairs)
