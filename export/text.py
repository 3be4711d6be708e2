"""How does text become token ids and come back, without a prompt being able to spell a control token?"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


class TextCodec:
    """The bundle's tokenizer, for text only: what it encodes never holds a special token."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(path))
        # A prompt that spells "<|boi|>" is text: its characters are encoded, not the token of that name.
        self._tokenizer.encode_special_tokens = True

    def encode(self, text: str) -> Tensor:
        """Token ids, int64 [n], without beginning or end of document."""
        return torch.tensor(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.int64)

    def decode(self, ids: Tensor) -> str:
        """Text of int64 [n] ids; special tokens are left out."""
        return self._tokenizer.decode(ids.tolist(), skip_special_tokens=True)
