"""Text to token ids and back; no prompt can spell a control token, and what is no text is refused before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.failure import ExportRefused
from export.manifest import AGAIN

# Far beyond what any model holds; tokenizing more would only take time.
MAX_TEXT_BYTES = 2**20
MAX_SHOWN_CHARACTERS = 80


def check_text(name: str, value: Any) -> None:
    """Raise ValueError with one sentence where the field `name` holds anything but text that can be encoded."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        half, at = value[error.start], error.start + 1
        raise ValueError(
            f"{name} holds {half!a} as character {at}, one half of a surrogate pair; write the whole character or leave it out"
        ) from None
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"{name} has {size} bytes, more than {MAX_TEXT_BYTES}")


def shown(value: Any) -> str:
    """A value from outside as a message holds it: its Python form, a long one cut."""
    try:
        text = repr(value)
    except ValueError:
        # Python does not write integers of more than some thousand digits.
        return f"a very long {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."


class TextCodec:
    """The bundle's tokenizer, for text only: what it encodes never holds a special token."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            # The library raises nothing more special.
            raise ExportRefused(f"{path} is no tokenizer ({shown(str(error))}); {AGAIN}") from None
        # A prompt that spells "<|boi|>" is text: its characters are encoded, not the token of that name.
        self._tokenizer.encode_special_tokens = True
        # A byte-level vocabulary writes each byte as one character.
        self.longest_token_bytes = max((len(token) for token in self._tokenizer.get_vocab()), default=1)

    def encode(self, text: str) -> Tensor:
        """Token ids, int64 [n], without beginning or end of document."""
        return torch.tensor(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.int64)

    def decode(self, ids: Tensor) -> str:
        """Text of int64 [n] ids; special tokens are left out."""
        return self._tokenizer.decode(ids.tolist(), skip_special_tokens=True)
