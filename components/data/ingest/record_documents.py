"""The documents of one raw record: checked texts, prepared images, a split and a layout, or a reason for each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from components.data.config import CorpusConfig, IngestConfig
from components.data.content_config import TextConfig
from components.data.documents import Document, ImageSegment, Segment, TextSegment
from components.data.ingest.decode_pool import Decoded, DecodeFailure
from components.data.ingest.readers.captions import captions_in
from components.data.ingest.readers.records import Fault, RawImage, RawText, Record, UnusableError, printable
from components.data.ingest.rejected import Rejected
from components.data.ingest.text_rules import CheckedText, TextError, check_caption, check_text, without_utf16
from components.data.splits import split_of
from core.images import PreparedImage
from core.random import uniform_of

LINE_END = re.compile("\r\n|\r|\n")

Piece = RawText | PreparedImage | Fault


class Made(NamedTuple):
    """A document made of a record."""

    position: str
    """Where its record stands."""
    document: Document
    notes: tuple[str, ...]
    """What was passed over in the record and is only counted."""


Outcome = Made | Rejected


def image_data(record: Record | Rejected) -> list[bytes]:
    """The encoded images that the record has, in order."""
    pieces = record.pieces if isinstance(record, Record) else ()
    return [piece.value for piece in pieces if isinstance(piece, RawImage) and isinstance(piece.value, bytes) and piece.value]


def outcomes(record: Record, decoded: Sequence[Decoded], corpus: CorpusConfig, config: IngestConfig) -> list[Outcome]:
    """One outcome a document that the record stands for: with several captions, one each or one in all.

    decoded: what became of image_data(record).
    """
    pieces = list(_with_images(record, decoded))
    return [
        _outcome(position, key, chosen, record, corpus, config)
        for position, key, chosen in _documents(record, pieces, corpus, config)
    ]


def _with_images(record: Record, decoded: Sequence[Decoded]) -> Iterator[Piece]:
    # In step with `image_data`, which leaves out what cannot be decoded.
    results = iter(decoded)
    for piece in record.pieces:
        if isinstance(piece, RawText):
            yield piece
        elif isinstance(piece.value, Fault):
            yield piece.value
        elif not piece.value:
            yield Fault("missing image")
        else:
            result = next(results)
            yield Fault(result.reason) if isinstance(result, DecodeFailure) else result


def _documents(
    record: Record, pieces: Sequence[Piece], corpus: CorpusConfig, config: IngestConfig
) -> Iterator[tuple[str, str, Sequence[Piece]]]:
    """Position, key and pieces of each document; a caption comes before its image here."""
    if not record.is_pair:
        yield record.position, record.key, pieces
        return
    captions = [caption for piece in pieces if isinstance(piece, RawText) for caption in _captions(piece, corpus)]
    images = [piece for piece in pieces if not isinstance(piece, RawText)]
    if len(captions) == 1 or corpus.captions == "one":
        yield record.position, record.key, [_chosen(captions, record.key, config), *images]
        return
    for number, caption in enumerate(captions):
        yield f"{record.position} caption {number}", f"{record.key}#{number}", [caption, *images]


def _captions(piece: RawText, corpus: CorpusConfig) -> list[RawText]:
    """The captions that one text holds: itself, those of a list that it spells, or its lines."""
    found = captions_in(piece.value)
    # Before lines are looked for: a caption of a list may have several.
    if found != [piece.value]:
        return [RawText(caption) for caption in found]
    if not corpus.caption_per_line:
        return [piece]
    value = without_utf16(piece.value)
    if isinstance(value, bytes):
        lines = [RawText(line) for line in value.splitlines() if line.strip()]
    elif isinstance(value, str):
        lines = [RawText(line) for line in LINE_END.split(value) if line.strip()]
    else:
        lines = []
    return lines or [piece]


def _chosen(captions: Sequence[RawText], key: str, config: IngestConfig) -> RawText:
    """The caption that a hash of the key draws; from there on the first that can be used."""
    start = int(uniform_of("caption", printable(key), config.seed) * len(captions))
    drawn = [*captions[start:], *captions[:start]]
    return next((caption for caption in drawn if _is_usable(caption, config.text)), drawn[0])


def _is_usable(caption: RawText, rules: TextConfig) -> bool:
    try:
        check_caption(caption.value, rules)
    except TextError:
        return False
    return True


def _outcome(
    position: str, key: str, pieces: Sequence[Piece], record: Record, corpus: CorpusConfig, config: IngestConfig
) -> Outcome:
    segments: list[Segment] = []
    notes = list(record.notes)
    try:
        check_text(key, "key")
        for piece in pieces:
            if isinstance(piece, PreparedImage):
                segments.append(ImageSegment(piece.png))
                notes += piece.notes
            else:
                checked = _text(piece, record.is_pair, config.text)
                segments.append(TextSegment(checked.text))
                notes += checked.notes
        if not segments:
            raise UnusableError("missing text")
    except (UnusableError, TextError) as error:
        return Rejected(corpus.name, printable(position), str(error))
    # By the document's key: captions of one image come before it and after it.
    if record.is_pair and uniform_of("layout", key, config.seed) >= corpus.caption_first_share:
        segments = [*segments[1:], segments[0]]
    # By the record's key: one image with several captions must not stand in two splits.
    split = split_of(record.key, config.split_shares, config.seed)
    document = Document(key=key, source=corpus.name, split=split, segments=tuple(segments))
    return Made(position, document, tuple(notes))


def _text(piece: RawText | Fault, is_caption: bool, rules: TextConfig) -> CheckedText:
    fault = piece if isinstance(piece, Fault) else piece.value
    if isinstance(fault, Fault):
        raise UnusableError(fault.reason)
    return check_caption(fault, rules) if is_caption else check_text(fault, "text")
