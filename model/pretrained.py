"""How is a model kept? A folder of config.json and model.safetensors, as Hugging Face lays models out."""

from __future__ import annotations

import json
from pathlib import Path

from model.config import ModelConfig
from model.transfusion import Transfusion


def save_pretrained(model: Transfusion, folder: Path) -> None:
    """Write config.json and model.safetensors into `folder`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict(), indent=2) + "\n")
    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def from_pretrained(folder: Path) -> Transfusion:
    """The model of `folder`, on the CPU, in eval mode. Raises ValueError where the weights do not fit the configuration."""
    from safetensors.torch import load_file

    model = Transfusion(ModelConfig.from_dict(json.loads((folder / "config.json").read_text())))
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except RuntimeError as error:
        raise ValueError(f"{folder}: model.safetensors does not fit config.json: {error}") from None
    return model.eval()
