"""Any corpus as documents: a bad record is rejected alone, a file that cannot be read stops the stage."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator

from components.data.config import BUILT_IN, CorpusConfig, IngestConfig
from components.data.demonstration.prose import read_prose
from components.data.demonstration.scenes import SCENE_SIDE_PX, make_scenes
from components.data.documents import Document, ImageSegment
from components.data.ingest.decode_pool import decode_many
from components.data.ingest.digest_set import DigestSet, digest
from components.data.ingest.readers.coco import SUFFIXES as COCO_SUFFIXES
from components.data.ingest.readers.coco import read_coco
from components.data.ingest.readers.corpus_files import CorpusFile, Reading, images_folder, open_files
from components.data.ingest.readers.endings import listed_endings
from components.data.ingest.readers.image_folder import read_image_folder
from components.data.ingest.readers.interleaved import MMC4_SUFFIXES, OBELICS_SUFFIXES, read_mmc4, read_obelics
from components.data.ingest.readers.jsonl import SUFFIXES as JSONL_SUFFIXES
from components.data.ingest.readers.jsonl import read_jsonl
from components.data.ingest.readers.locating import locate, locate_folders
from components.data.ingest.readers.parquet import SUFFIXES as PARQUET_SUFFIXES
from components.data.ingest.readers.parquet import read_parquet
from components.data.ingest.readers.records import Record, printable
from components.data.ingest.readers.references import read_ahead
from components.data.ingest.readers.webdataset import SUFFIXES as TAR_SUFFIXES
from components.data.ingest.readers.webdataset import read_webdataset
from components.data.ingest.record_documents import Made, Outcome, image_data, outcomes
from components.data.ingest.rejected import Rejected
from core.errors import BadInput
from core.images import to_square_png

# image_folder is the one format whose records are not inside files.
FILE_READERS: dict[str, tuple[Callable[[CorpusFile], Iterator[Record | Rejected]], tuple[str, ...]]] = {
    "webdataset": (read_webdataset, TAR_SUFFIXES),
    "parquet": (read_parquet, PARQUET_SUFFIXES),
    "coco": (read_coco, COCO_SUFFIXES),
    "obelics": (read_obelics, OBELICS_SUFFIXES),
    "mmc4": (read_mmc4, MMC4_SUFFIXES),
    "jsonl": (read_jsonl, JSONL_SUFFIXES),
}


def read_records(corpus: CorpusConfig, config: IngestConfig, reading: Reading) -> Generator[list[Outcome], None, None]:
    """Every record of the corpus's files in order, as an outcome for each document it stands for, never none.

    Documents have a split, and images as PNG of image_side_px; of those with the same key the first is kept. `reading`
    says how far it is. BadInput for a missing path, an unreadable file or an empty corpus.
    """
    number = 0
    for made in (_built_in if corpus.format in BUILT_IN else _from_files)(corpus, config, reading):
        number += 1
        assert made, f"record {number} of {corpus.name} became nothing"
        yield made
    if not number:
        beside = "".join(f", beside {sentence}" for sentence in reading.passed_over.sentences())
        place = corpus.path or corpus.format
        raise BadInput(f"the corpus {corpus.name!r} is empty{beside}; put data at {place} or take it out of ingest.corpora")
    assert number == reading.num_records, f"{reading.num_records} records of {corpus.name} were read and {number} came out"


def check_paths(corpus: CorpusConfig) -> None:
    """BadInput unless there is something to read: a mistyped path must be found before anything is removed or read."""
    if corpus.format == "image_folder":
        locate_folders(corpus)
    elif corpus.format not in BUILT_IN:
        locate(corpus, FILE_READERS[corpus.format][1])
        images_folder(corpus)


def num_decoders() -> int:
    """Processes that decode images: TRANSFUSION_NUM_DECODERS, else one a core; 0 decodes in this process, unguarded."""
    text = os.environ.get("TRANSFUSION_NUM_DECODERS", "")
    if text and not text.isdecimal():
        raise BadInput(f"TRANSFUSION_NUM_DECODERS={text!r} must be a whole number; unset it for one process a core")
    return int(text) if text else os.cpu_count() or 1


def _from_files(corpus: CorpusConfig, config: IngestConfig, reading: Reading) -> Iterator[list[Outcome]]:
    kept = DigestSet()
    records = read_ahead(_counted(_records(corpus, reading, listed_endings(config.images.formats)), reading))
    decoded = decode_many(records, image_data, side_px=config.image_side_px, rules=config.images, num_workers=num_decoders())
    for record, images in decoded:
        if isinstance(record, Rejected):
            yield [record._replace(position=printable(record.position))]
        else:
            yield [_first_of_its_key(found, kept) for found in outcomes(record, images, corpus, config)]


def _records(corpus: CorpusConfig, reading: Reading, listed_pictures: frozenset[str]) -> Iterator[Record | Rejected]:
    if corpus.format == "image_folder":
        yield from read_image_folder(corpus, reading, listed_pictures)
        return
    read, suffixes = FILE_READERS[corpus.format]
    for file in open_files(corpus, suffixes, reading, listed_pictures):
        yield from read(file)


def _counted(records: Iterable[Record | Rejected], reading: Reading) -> Iterator[Record | Rejected]:
    for record in records:
        reading.num_records += 1
        yield record


def _first_of_its_key(outcome: Outcome, kept: DigestSet) -> Outcome:
    if isinstance(outcome, Made) and not kept.add(digest(outcome.document.key)):
        return Rejected(outcome.document.source, printable(outcome.position), "duplicate key")
    return outcome


def _built_in(corpus: CorpusConfig, config: IngestConfig, reading: Reading) -> Iterator[list[Outcome]]:
    """The demonstration's documents, which need no checks; every one of them counts as a record."""
    shares, seed = config.split_shares, config.seed
    if corpus.format == "python_prose":
        documents = read_prose(config.prose, shares, seed=seed, source=corpus.name)
    else:
        share = corpus.caption_first_share
        scenes = make_scenes(config.scenes, shares, seed=seed, caption_first_share=share, source=corpus.name)
        documents = (_resized(scene, config.image_side_px) for scene in scenes)
        reading.total_records = sum((config.scenes.num_train, config.scenes.num_validation, config.scenes.num_test))
    for document in documents:
        reading.num_records += 1
        yield [Made(document.key, document, ())]


def _resized(scene: Document, side_px: int) -> Document:
    if side_px == SCENE_SIDE_PX:
        return scene
    segments = tuple(
        ImageSegment(to_square_png(segment.data, side_px)) if isinstance(segment, ImageSegment) else segment
        for segment in scene.segments
    )
    return Document(key=scene.key, source=scene.source, split=scene.split, segments=segments, meta=scene.meta)
