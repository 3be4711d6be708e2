"""A checkpoint holds every bit of the state, and a broken one is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from components.runtime.cluster import device
from components.training.checkpoints import load_state
from components.training.run_folder import RunFolder, folder_of, resume
from components.training.transformer.state import TransformerState, new_state
from core.errors import BadInput
from tests.components.training.conftest import CONFIG, Corpus, changed


def state_after(corpus: Corpus, num_updates: int, seed: int) -> TransformerState:
    """A state whose moments are those of a few made-up gradients."""
    state = new_state(changed(seed=seed), corpus.rows("train"), device())
    for _ in range(num_updates):
        for parameter in state.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        state.optimiser.step()
    for parameter in state.ema_model.parameters():
        parameter.data += torch.randn_like(parameter)
    return state


def save(folder: Path, state: TransformerState, step: int) -> Path:
    return RunFolder(folder=folder).save_checkpoint(state, step)


def resumed(folder: Path, state: TransformerState, said: list[str]) -> int:
    return resume(RunFolder(folder=folder).store, lambda checkpoint: load_state(checkpoint, state), said.append)


def assert_same(left: TransformerState, right: TransformerState) -> None:
    for one, other in zip(left.model.parameters(), right.model.parameters(), strict=True):
        assert torch.equal(one, other)
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(left.optimiser.state[one][moment], right.optimiser.state[other][moment]), moment
    for one, other in zip(left.ema_model.parameters(), right.ema_model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_every_bit_comes_back(corpus: Corpus, tmp_path: Path) -> None:
    saved = state_after(corpus, 3, seed=1)
    folder = save(tmp_path, saved, 3)
    assert folder == folder_of(RunFolder(folder=tmp_path).store, 3)
    loaded = state_after(corpus, 1, seed=2)
    assert load_state(folder, loaded) == 3
    assert_same(saved, loaded)
    for state in (saved, loaded):
        for parameter in state.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        state.optimiser.step()
    assert_same(saved, loaded)


def test_what_the_optimiser_reads_lies_where_the_parameter_lies(corpus: Corpus, tmp_path: Path) -> None:
    # Fused AdamW on an accelerator takes no count that lies on the CPU. "meta" is a device apart that every machine has.
    folder = save(tmp_path, state_after(corpus, 2, seed=13), 2)
    elsewhere = new_state(CONFIG, corpus.rows("train"), torch.device("meta"))
    assert load_state(folder, elsewhere) == 2
    for parameter in elsewhere.model.parameters():
        values = elsewhere.optimiser.state[parameter]
        assert {value.device for value in values.values()} == {parameter.device}
        assert values["step"].dtype == torch.float32


@pytest.mark.parametrize("name", ["model", "ema_model", "model.step", "model.exp_avg", "model.exp_avg_sq"])
def test_a_flipped_byte_is_found_and_the_one_before_is_used(corpus: Corpus, tmp_path: Path, name: str) -> None:
    older = state_after(corpus, 2, seed=3)
    save(tmp_path, older, 2)
    newest = save(tmp_path, state_after(corpus, 4, seed=4), 4)
    path = newest / f"{name}.safetensors"
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
    weights = newest / "model.safetensors"
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
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-00000001"]
