"""Text as token ids and back: byte-level BPE with five control tokens, which no text can spell.

A caption that holds "<|boi|>" is encoded as those seven characters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from core.errors import BadInput
from core.files import sha256, write_bytes
from core.manifest import read_manifest, write_manifest

KIND = "tokenizer"
FILE = "tokenizer.json"
REMEDY = "make it with the ingest stage"
MAX_REASON_CHARACTERS = 80
SPECIAL_TOKENS = {"pad": "<|pad|>", "bos": "<|bos|>", "eos": "<|eos|>", "boi": "<|boi|>", "eoi": "<|eoi|>"}


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> TextTokenizer:
    """Learn merges from the training split's texts; a small corpus may give fewer than vocab_size tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS.values()),
        # All 256 bytes are tokens, so any text can be encoded.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return TextTokenizer(tokenizer)


def load_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer of a folder that `TextTokenizer.save` wrote, its bytes checked against the manifest."""
    read_manifest(folder, kind=KIND)
    return read_tokenizer(folder / FILE)


def read_tokenizer(path: Path, remedy: str = REMEDY) -> TextTokenizer:
    """The tokenizer of a tokenizer.json. remedy: what BadInput tells the user to do where it is none."""
    try:
        return TextTokenizer(Tokenizer.from_file(str(path)))
    except Exception as error:
        # The library raises nothing more special.
        raise BadInput(f"{path} is no tokenizer ({' '.join(str(error).split())[:MAX_REASON_CHARACTERS]}); {remedy}") from None


class TextTokenizer:
    """Text to ids and back.

    special_ids: pad, bos, eos, boi, eoi -> 0..4. vocab_size: control tokens included. BadInput where it has no such tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        # Without this the library turns text that spells a control token into that token.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.special_ids: dict[str, int] = {name: id for id, name in enumerate(SPECIAL_TOKENS)}
        self.vocab_size: int = tokenizer.get_vocab_size()
        # A byte-level vocabulary writes each byte as one character.
        self.longest_token_bytes = max(map(len, tokenizer.get_vocab()), default=1)
        for name, token in SPECIAL_TOKENS.items():
            found = tokenizer.token_to_id(token)
            if found != self.special_ids[name]:
                raise BadInput(f"{token} has the id {found}, not {self.special_ids[name]}")

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, none of them a control id, whatever the text spells."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; control tokens are left out, bytes that are no UTF-8 become the replacement character."""
        return self._tokenizer.decode([int(id) for id in ids], skip_special_tokens=True)

    @property
    def digest(self) -> str:
        """Hex sha256 of all that it does: equal ones encode alike."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()

    def save(self, folder: Path) -> str:
        """Write tokenizer.json and its manifest into `folder`; returns the sha256 of tokenizer.json."""
        path = folder / FILE
        write_bytes(path, self._tokenizer.to_str(pretty=True).encode())
        write_manifest(folder, kind=KIND, special_ids=self.special_ids, vocab_size=self.vocab_size)
        return sha256(path)
