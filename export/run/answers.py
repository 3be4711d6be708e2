"""What comes back for one prompt: a picture, words, or a sentence that says why there is neither."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from core.errors import BadPrompt
from core.files import write_bytes, write_text
from core.images import ImageError

MAX_REASON_CHARACTERS = 300


class Answer(NamedTuple):
    """To one prompt: a text or an image, by its task; or why there is neither."""

    id: str
    text: str = ""
    image_png: bytes = b""
    """A PNG file's bytes."""
    error: str = ""
    """One sentence."""
    num_tokens: int = 0
    """Of the text."""

    def save(self, path: str | Path) -> None:
        """Write the picture, or the words as UTF-8; raises BadPrompt where there is neither, OSError where it cannot."""
        if self.error:
            raise BadPrompt(self.error)
        if self.image_png:
            write_bytes(Path(path), self.image_png)
        else:
            write_text(Path(path), self.text + "\n")


def reason_of(error: BaseException) -> str:
    """Why a request has no answer, in one sentence. An error that asks the process to end is raised again."""
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    if isinstance(error, BadPrompt | ImageError):
        return str(error)
    # The accelerator's is a class of torch's own.
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "the answer needs more memory than there is; take a smaller batch_size or a shorter prompt"
    # The tokenizer's panics derive from BaseException alone, so callers catch that.
    first = (str(error).strip().splitlines() or [""])[0]
    return f"the answer failed with {type(error).__name__}{': ' if first else ''}{first[:MAX_REASON_CHARACTERS]}"
