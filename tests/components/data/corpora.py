"""Small corpora in users' formats, and a reader of them, for the tests of the readers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.config import (
    CorpusConfig,
    CorpusDefaults,
    CorpusFormat,
    IngestConfig,
    ProseConfig,
    ScenesConfig,
    SplitShares,
)
from components.data.content_config import DuplicatesConfig, ImagesConfig, TextConfig
from components.data.documents import Document, ImageSegment
from components.data.ingest.corpus import read_records
from components.data.ingest.readers.corpus_files import Reading
from components.data.ingest.record_documents import Made
from components.data.ingest.rejected import Rejected
from core.images import OWN_RULES
from core.png import encode_png

Members = Sequence[tuple[str, bytes]]

IMAGE_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

DEFAULTS = CorpusDefaults(
    images="", captions="each", caption_per_line=False, caption_first_share=0.8, max_documents=0, weight=1.0
)
IMAGES = ImagesConfig(**vars(OWN_RULES), decoder_memory_mib=1024, decoder_seconds=20.0)


def picture(number: int) -> bytes:
    return encode_png(np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8))


def pairs(numbers: range) -> list[tuple[str, bytes]]:
    return [member for n in numbers for member in ((f"{n:06d}.png", picture(n)), (f"{n:06d}.txt", f"caption {n}".encode()))]


def tar_bytes(members: Members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write_parquet(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=3)


def write_images(folder: Path, names: Sequence[str]) -> None:
    """picture(n) under the n-th name."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))


def write_jsonl(path: Path, records: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def corpus_of(format: CorpusFormat, path: Path | str, **changes: Any) -> CorpusConfig:
    return CorpusConfig(name="mine", format=format, path=str(path), **asdict(DEFAULTS) | changes)


def config_for(*corpora: CorpusConfig, image_side_px: int = 16, max_caption_bytes: int = 4096) -> IngestConfig:
    return IngestConfig(
        seed=3,
        image_side_px=image_side_px,
        max_rejected_share=0.5,
        documents_per_file=16,
        tokenizer="",
        vocab_size=300,
        split_shares=SplitShares(validation=0.2, test=0.2),
        scenes=ScenesConfig(num_train=6, num_validation=2, num_test=2, num_kept_out_pairs=3),
        prose=ProseConfig(max_train_bytes=9000, max_held_out_bytes=3000, passage_bytes=300),
        images=replace(IMAGES, max_pixels=10_000_000),
        text=TextConfig(max_caption_bytes=max_caption_bytes, long_captions="refuse"),
        duplicates=DuplicatesConfig(
            exact="count",
            near="off",
            near_threshold=0.8,
            permutations=16,
            shingle_chars=5,
            image_distance=3,
            max_remembered=1000,
        ),
        corpus_defaults=DEFAULTS,
        corpora=corpora,
    )


def read_corpus(corpus: CorpusConfig, config: IngestConfig) -> Iterator[Document | Rejected]:
    """The documents and rejected records of `read_records`, one after another."""
    for outcomes in read_records(corpus, config, Reading()):
        for outcome in outcomes:
            yield outcome.document if isinstance(outcome, Made) else outcome


def read(
    format: CorpusFormat, path: Path | str, image_side_px: int = 16, max_caption_bytes: int = 4096, **changes: Any
) -> tuple[dict[str, Document], list[Rejected]]:
    """The corpus's documents by key, and its rejected records; changes: fields of CorpusConfig."""
    corpus = corpus_of(format, path, **changes)
    config = config_for(corpus, image_side_px=image_side_px, max_caption_bytes=max_caption_bytes)
    with pytest.MonkeyPatch.context() as here:
        # Starting processes for a few pictures takes longer than the pictures.
        here.setenv("TRANSFUSION_NUM_DECODERS", "0")
        found = list(read_corpus(corpus, config))
    documents = [document for document in found if isinstance(document, Document)]
    by_key = {document.key: document for document in documents}
    assert len(by_key) == len(documents)
    return by_key, [record for record in found if isinstance(record, Rejected)]


def reasons(rejected: list[Rejected]) -> list[tuple[str, str]]:
    """Position, without its folder, and reason of each rejected record."""
    return [(Path(record.position).name, record.reason) for record in rejected]


def outline(document: Document) -> list[str]:
    """The texts of a document, and <image> where an image stands."""
    return ["<image>" if isinstance(segment, ImageSegment) else segment.text for segment in document.segments]
