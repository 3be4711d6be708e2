"""A document as one stream of token ids: [bos] text ... [boi] [eoi] ... text [eos].

Every image is the adjacent pair boi, eoi, and its patches go between the two once their number is known. Control ids come from
the stream's layout only, never from what a text says.
"""

from __future__ import annotations

from typing import NamedTuple

from components.data.documents import Document, TextSegment
from core.tokenizer import TextTokenizer


class TokenStream(NamedTuple):
    """ids: the stored stream, control tokens included. image_positions: index in `ids` of each image's boi."""

    ids: list[int]
    image_positions: list[int]


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
