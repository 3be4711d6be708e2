"""How does text become token ids, and a document one stream of them? Byte-level BPE with five control tokens.

The stored stream of a document is [bos] text ... [boi] [eoi] ... text [eos]: every image is the adjacent pair boi, eoi,
and its patches go between the two once their number is known. Control ids come from the stream's layout only, never
from what a text says: a caption that spells "<|boi|>" is encoded as those seven characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from components.data.documents import Document, TextSegment
from components.runtime.failure import BadInput
from components.runtime.files import read_manifest, sha256, write_bytes, write_manifest

KIND = "tokenizer"
FILE = "tokenizer.json"
SPECIAL_TOKENS = {"pad": "<|pad|>", "bos": "<|bos|>", "eos": "<|eos|>", "boi": "<|boi|>", "eoi": "<|eoi|>"}


class TokenStream(NamedTuple):
    """ids: the stored stream, control tokens included. image_positions: index in `ids` of each image's boi."""

    ids: list[int]
    image_positions: list[int]


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
    return TextTokenizer(Tokenizer.from_file(str(folder / FILE)))


def token_stream(tokenizer: TextTokenizer, document: Document) -> TokenStream:
    """The stored stream of one document and where its images go."""
    special = tokenizer.special_ids
    ids, image_positions = [special["bos"]], []
    for segment in document.segments:
        if isinstance(segment, TextSegment):
            ids += tokenizer.encode(segment.text)
        else:
            image_positions.append(len(ids))
            ids += [special["boi"], special["eoi"]]
    return TokenStream([*ids, special["eos"]], image_positions)


class TextTokenizer:
    """Text to ids and back. special_ids: pad, bos, eos, boi, eoi -> 0..4. vocab_size: control tokens included."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        # Without this the library turns text that spells a control token into that token.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.special_ids: dict[str, int] = {name: id for id, name in enumerate(SPECIAL_TOKENS)}
        self.vocab_size: int = tokenizer.get_vocab_size()
        for name, token in SPECIAL_TOKENS.items():
            found = tokenizer.token_to_id(token)
            if found != self.special_ids[name]:
                raise BadInput(
                    f"the tokenizer has {token} at id {found}, not {self.special_ids[name]}; make it with the ingest stage"
                )

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, none of them a control id, whatever the text spells."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; control tokens are left out, bytes that are no UTF-8 become the replacement character."""
        return self._tokenizer.decode([int(id) for id in ids], skip_special_tokens=True)

    def save(self, folder: Path) -> str:
        """Write tokenizer.json and its manifest into `folder`; returns the sha256 of tokenizer.json."""
        path = folder / FILE
        write_bytes(path, self._tokenizer.to_str(pretty=True).encode())
        write_manifest(folder, kind=KIND, special_ids=self.special_ids, vocab_size=self.vocab_size)
        return sha256(path)
