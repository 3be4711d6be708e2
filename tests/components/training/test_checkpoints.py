"""A checkpoint holds every bit of the state, and a broken one is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import HuggingFaceStorageReader

from components.runtime.cluster import device
from components.runtime.world import World
from components.training.checkpoint_folders import folder_of
from components.training.checkpointer import Checkpointer
from components.training.checkpoints import _targets, load_state
from components.training.transformer.state import TransformerState, new_state
from core.errors import BadInput
from tests.components.training.conftest import Corpus, changed

HERE = World(0, 1, device())


def state_after(corpus: Corpus, num_updates: int, seed: int) -> TransformerState:
    """A state whose moments are those of a few made-up gradients."""
    # With Muon both kinds of moments are kept, AdamW's for the parameters that it leaves.
    state = new_state(changed(seed=seed, optimiser="muon"), corpus.rows("train"), HERE)
    for _ in range(num_updates):
        for parameter in state.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        step(state)
    for parameter in state.ema_model.parameters():
        parameter.data += torch.randn_like(parameter)
    return state


def step(state: TransformerState) -> None:
    for optimiser in state.optimisers:
        optimiser.step()


def moments(state: TransformerState) -> dict[str, dict[str, torch.Tensor]]:
    """By the parameters' names."""
    kept = {parameter: values for optimiser in state.optimisers for parameter, values in optimiser.state.items()}
    return {name: kept[parameter] for name, parameter in state.model.named_parameters()}


def save(folder: Path, state: TransformerState, step: int) -> Path:
    with Checkpointer(folder, state, HERE, print) as checkpointer:
        checkpointer.save(step)
    return folder_of(folder, step)


def resumed(folder: Path, state: TransformerState, said: list[str]) -> int:
    with Checkpointer(folder, state, HERE, said.append) as checkpointer:
        return checkpointer.restore()


def assert_same(left: TransformerState, right: TransformerState) -> None:
    for one, other in zip(left.model.parameters(), right.model.parameters(), strict=True):
        assert torch.equal(one, other)
    left_moments, right_moments = moments(left), moments(right)
    for name, values in left_moments.items():
        assert set(values) in ({"exp_avg", "exp_avg_sq", "step"}, {"momentum_buffer"}), name
        assert set(values) == set(right_moments[name]), name
        for moment, value in values.items():
            assert torch.equal(value, right_moments[name][moment]), (name, moment)
    for one, other in zip(left.ema_model.parameters(), right.ema_model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_every_bit_comes_back(corpus: Corpus, tmp_path: Path) -> None:
    saved = state_after(corpus, 3, seed=1)
    folder = save(tmp_path, saved, 3)
    loaded = state_after(corpus, 1, seed=2)
    assert load_state(folder, loaded) == 3
    assert_same(saved, loaded)
    for state in (saved, loaded):
        for parameter in state.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        step(state)
    assert_same(saved, loaded)


def test_what_the_optimiser_reads_lies_where_the_parameter_lies(corpus: Corpus, tmp_path: Path) -> None:
    # Fused AdamW on an accelerator takes no count that lies on the CPU. "meta" is a device apart that every machine has.
    folder = save(tmp_path, state_after(corpus, 2, seed=13), 2)
    elsewhere = new_state(changed(optimiser="muon"), corpus.rows("train"), World(0, 1, torch.device("meta")))
    saved = HuggingFaceStorageReader(str(folder)).read_metadata()
    targets = _targets(elsewhere, saved)
    assert all(tensor.is_meta for name, tensor in targets.items() if not name.startswith("others/"))
    for name, values in moments(elsewhere).items():
        assert {value.device for value in values.values()} == {torch.device("meta")}, name
        assert "momentum_buffer" in values or values["step"].dtype == torch.float32, name


@pytest.mark.parametrize(
    "name", ["model", "ema_model", "model.step", "model.exp_avg", "model.exp_avg_sq", "model.momentum_buffer"]
)
def test_a_flipped_byte_is_found_and_the_one_before_is_used(corpus: Corpus, tmp_path: Path, name: str) -> None:
    older = state_after(corpus, 2, seed=3)
    save(tmp_path, older, 2)
    newest = save(tmp_path, state_after(corpus, 4, seed=4), 4)
    path = newest / f"{name}.rank-0.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    loaded, said = state_after(corpus, 1, seed=5), list[str]()
    with pytest.raises(BadInput, match=name):
        load_state(newest, loaded)
    assert resumed(tmp_path, loaded, said) == 2
    assert_same(older, loaded)
    assert "step-00000004 is passed over" in said[0]


@pytest.mark.parametrize("harm", ["no manifest", "cut file", "missing file", "empty folder"])
def test_half_a_checkpoint_does_not_exist(corpus: Corpus, tmp_path: Path, harm: str) -> None:
    older = state_after(corpus, 1, seed=6)
    save(tmp_path, older, 1)
    newest = save(tmp_path, state_after(corpus, 2, seed=7), 2)
    weights = newest / "model.rank-0.safetensors"
    if harm == "no manifest":
        (newest / "manifest.json").unlink()
    elif harm == "cut file":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif harm == "missing file":
        weights.unlink()
    else:
        for path in newest.iterdir():
            path.unlink()
    loaded = state_after(corpus, 1, seed=8)
    assert resumed(tmp_path, loaded, []) == 1
    assert_same(older, loaded)


def test_an_empty_store_starts_at_nothing(corpus: Corpus, tmp_path: Path) -> None:
    assert resumed(tmp_path / "not there yet", state_after(corpus, 1, seed=9), []) == 0


def test_writing_again_replaces(corpus: Corpus, tmp_path: Path) -> None:
    save(tmp_path, state_after(corpus, 1, seed=10), 1)
    second = state_after(corpus, 1, seed=11)
    save(tmp_path, second, 1)
    loaded = state_after(corpus, 2, seed=12)
    assert resumed(tmp_path, loaded, []) == 1
    assert_same(second, loaded)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
