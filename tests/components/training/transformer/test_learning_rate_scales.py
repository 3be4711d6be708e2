"""Parts of the model that learn at a rate of their own, or not at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from components.runtime.world import World
from components.training.parallel import whole
from components.training.transformer.config import LearningRateScales, TrainConfig
from components.training.transformer.optimiser import scale_of
from components.training.transformer.state import TransformerState, new_state
from components.training.transformer.trainer import TransformerTrainer
from model.config import Experts
from model.transfusion import Transfusion
from tests.components.training.conftest import CONFIG, Corpus, changed
from tests.components.training.transformer.test_trainer import ALONE, assert_equal_bits, copied, trained

ALL = LearningRateScales(text=1.0, images=1.0, shared=1.0)


def scaled(experts: Experts = "shared", optimiser: str = "adamw", **scales: float) -> TrainConfig:
    choice = dataclasses.replace(CONFIG.model, experts=experts)
    return changed(learning_rate_scales=dataclasses.replace(ALL, **scales), model=choice, optimiser=optimiser)


def after(corpus: Corpus, config: TrainConfig, num_steps: int, world: World = ALONE) -> TransformerState:
    state = new_state(config, corpus.rows("train"), world)
    trainer = TransformerTrainer(config, state, corpus.rows("train"), corpus.rows("validation"), world)
    for step in range(1, num_steps + 1):
        trainer.train_step(step)
    return state


@pytest.mark.parametrize(
    ("experts", "expected"),
    [
        ("shared", {"blocks.1.attention.0": "shared", "blocks.1.feed_forward.0": "shared", "norms.0": "shared"}),
        (
            "feed_forward",
            {"blocks.1.attention.0": "shared", "blocks.1.feed_forward.0": "text", "blocks.1.feed_forward.1": "images"},
        ),
        ("full", {"blocks.1.attention.0": "text", "blocks.1.attention.1": "images", "norms.0": "text", "norms.1": "images"}),
    ],
)
def test_every_parameter_is_of_text_of_images_or_of_both(corpus: Corpus, experts: Experts, expected: dict[str, str]) -> None:
    config = scaled(experts, text=2.0, images=3.0, shared=5.0)
    part_of = {2.0: "text", 3.0: "images", 5.0: "shared"}
    model = new_state(config, corpus.rows("train"), ALONE).model
    found = {name: part_of[scale_of(name, config)] for name, _ in model.named_parameters()}
    assert {part for name, part in found.items() if name.startswith(("embedding", "head"))} == {"text"}
    assert {part for name, part in found.items() if name.startswith("patch_layers")} == {"images"}
    for place, part in expected.items():
        assert {found[name] for name in found if name.startswith(f"transformer.{place}.")} == {part}, place


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize("frozen", ["text", "images", "shared"])
def test_a_frozen_part_stays_bit_for_bit_and_costs_no_moments(corpus: Corpus, optimiser: str, frozen: str) -> None:
    config = scaled("feed_forward", optimiser, **{frozen: 0.0})
    before = copied(new_state(config, corpus.rows("train"), ALONE).model)
    state = after(corpus, config, 3)
    kept = {parameter for each in state.optimisers for parameter in each.state}
    for (name, parameter), average in zip(state.model.named_parameters(), state.ema_model.parameters(), strict=True):
        is_frozen = scale_of(name, config) == 0
        assert (parameter in kept) != is_frozen, name
        assert torch.equal(parameter, before[name]) == is_frozen, name
        assert torch.equal(average, before[name]) == is_frozen, name


def test_frozen_weights_ask_for_no_gradient(corpus: Corpus) -> None:
    config = scaled(text=0.0)
    state = new_state(config, corpus.rows("train"), ALONE)
    seen = [name for name, parameter in state.model.named_parameters() if not parameter.requires_grad]
    assert seen == ["embedding.weight", "head.weight"]
    assert not any(parameter.requires_grad for parameter in state.ema_model.parameters())


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_part_moves_at_its_share_of_the_rate(corpus: Corpus, optimiser: str) -> None:
    before = copied(new_state(CONFIG, corpus.rows("train"), ALONE).model)

    def moved(config: TrainConfig) -> dict[str, torch.Tensor]:
        model: Transfusion = after(corpus, config, 1).model
        return {name: weight - before[name] for name, weight in copied(model).items()}

    whole, scaled_down = moved(scaled(optimiser=optimiser)), moved(scaled(optimiser=optimiser, text=0.5, shared=0.25))
    for name, expected in {
        "head.weight": 0.5,
        "transformer.blocks.0.attention.0.qkv.weight": 0.25,
        "patch_layers.0.proj_in.weight": 1.0,
    }.items():
        torch.testing.assert_close(scaled_down[name], expected * whole[name], rtol=1e-2, atol=1e-6)


def test_a_killed_training_with_a_frozen_part_resumes_exactly(corpus: Corpus, tmp_path: Path) -> None:
    config = dataclasses.replace(scaled(optimiser="muon", text=0.0, images=2.0), max_steps=8)
    whole = trained(corpus, config, tmp_path).state
    (tmp_path / "run/step-00000008/manifest.json").unlink()
    resumed = trained(corpus, config, tmp_path).state
    assert_equal_bits(whole.model, resumed.model)
    assert_equal_bits(whole.ema_model, resumed.ema_model)


def test_two_workers_leave_a_frozen_part_alone_too(corpus: Corpus, tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(one_of_two, (corpus, tmp_path), nprocs=2, start_method="spawn")
    config = scaled("feed_forward", "muon", text=0.0)
    before, alone = (copied(after(corpus, config, number).model) for number in (0, 3))
    found = torch.load(tmp_path / "0.pt", weights_only=True)
    for layout, weights in found.items():
        for name, weight in weights.items():
            assert torch.equal(weight, before[name]) == (scale_of(name, config) == 0), (layout, name)
            torch.testing.assert_close(weight, alone[name], atol=1e-4, rtol=1e-3, msg=f"{layout} {name}")


def one_of_two(rank: int, corpus: Corpus, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world, found = World(rank, 2, torch.device("cpu")), {}
    for layout in ("ddp", "fsdp"):
        config = dataclasses.replace(scaled("feed_forward", "muon", text=0.0), parallel=layout)
        model = after(corpus, config, 3, world).model
        # Of all workers, who put the shards together.
        found[layout] = {name: whole(weight.detach()).clone() for name, weight in model.named_parameters()}
    torch.distributed.destroy_process_group()
    if rank == 0:
        torch.save(found, folder / "0.pt")


def test_a_training_that_would_train_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="learning_rate_scales: nothing is trained"):
        scaled(text=0.0, images=0.0, shared=0.0)
    with pytest.raises(ValueError, match="nothing is trained"):
        scaled("full", text=0.0, images=0.0)
    assert scaled(text=0.0, images=0.0).learning_rate_scales.shared == 1.0
