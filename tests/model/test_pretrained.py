"""Does a model's folder hold it completely, and is a folder that does not fit refused?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from model.transfusion import Transfusion
from tests.model.conftest import tiny_model


def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = tiny_model(experts="feed_forward", qk_norm=True)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    back = Transfusion.from_pretrained(tmp_path)
    assert back.config == model.config
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, back.state_dict()[name]), name


def test_weights_of_another_size_and_unknown_keys_are_refused(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"mlp_width": 32}))
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit config\.json"):
        Transfusion.from_pretrained(tmp_path)
    path.write_text(json.dumps(values | {"depth": 3}))
    with pytest.raises(ValueError, match="depth"):
        Transfusion.from_pretrained(tmp_path)
