"""What the command of the harness names, opened: a model, its tokenizer, a device. BadInput says what does not fit."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError

from components.runtime.diagnosis import first_line
from core.errors import BadInput
from core.tokenizer import FILE, TextTokenizer, read_tokenizer
from model.transfusion import Transfusion

# The batch size where the command says "auto".
AUTO = 32


def model_of(folder: Path) -> Transfusion:
    """The model of a folder, on the CPU."""
    try:
        return Transfusion.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        why = f"there is no model in {folder} ({first_line(error)})"
        raise BadInput(f"{why}; name a bundle's folder: --model_args model=FOLDER") from None


def tokenizer_of(folder: Path, named: str) -> TextTokenizer:
    """The tokenizer of a file or folder that is named, or else that of the model's folder."""
    path = Path(named) if named else folder
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise BadInput(f"{path} is no tokenizer; a bundle holds one, and for other weights name it: tokenizer=data/tokenizer")
    return read_tokenizer(path)


def batch_size_of(given: int | str | None, most: int | str | None) -> int:
    """A number, or what "auto" stands for. most: of --max_batch_size."""
    size = (AUTO if most is None else most) if str(given).startswith("auto") else (1 if given is None else given)
    if not str(size).isdecimal() or int(size) < 1:
        raise BadInput(f'--batch_size: {size} must be a whole number of at least 1, or "auto"')
    return int(size)


def device_of(named: str | None) -> torch.device:
    """The device of a name; the CPU where torch sees no GPU."""
    try:
        # The command asks for a GPU where the user says nothing.
        device = torch.device(str(named or "cuda"))
    except RuntimeError:
        raise BadInput(f"--device: {named} is no device of torch; give cuda or cpu") from None
    return device if torch.cuda.is_available() else torch.device("cpu")
