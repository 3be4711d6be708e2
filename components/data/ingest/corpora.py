"""All corpora as one folder of documents and a tokenizer, without one of them held in memory.

A record stands for one document or more (an image with five captions: five). Each of these candidates becomes a document, or is
rejected, or is dropped as a duplicate: the three are counted where they end up, and their sum is checked against the
candidates. What lies in a corpus and is no record is counted beside them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from components.data.config import CorpusConfig, IngestConfig
from components.data.demonstration.scenes import Pair, kept_out_pairs
from components.data.documents import SPLITS, Document, DocumentWriter, read_documents
from components.data.documents_table import document_row, write_table
from components.data.ingest.corpus import check_paths, read_records
from components.data.ingest.duplicates import DuplicateFinder
from components.data.ingest.readers.corpus_files import Reading
from components.data.ingest.readers.passed_over import PassedOver
from components.data.ingest.rejected import Rejected, RejectedFile, refuse_above
from components.runtime.progress import Progress
from core.files import fresh_folder
from core.given_tokenizer import given_tokenizer
from core.images import Preparation
from core.manifest import write_manifest
from core.tokenizer import TextTokenizer, train_tokenizer

KIND = "documents"


@dataclass
class CorpusCounts:
    """What became of one corpus."""

    records: int = 0
    """As they lie in its files."""
    candidates: int = 0
    """Documents that the records stand for."""
    documents: int = 0
    """Kept."""
    dropped: int = 0
    """Left out as duplicates."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Rejected candidates, by reason."""
    duplicates: Counter[str] = field(default_factory=Counter)
    """Met before, by kind, dropped or not."""
    notes: Counter[str] = field(default_factory=Counter)
    """What was passed over in records that were kept."""
    passed_over: PassedOver = field(default_factory=PassedOver)
    """Files, members and lines that are no records."""
    is_capped: bool = False
    """Stopped at max_documents."""

    def report(self) -> dict[str, Any]:
        """For counts.json; candidates = documents + rejected + duplicates_dropped."""
        rejected = self.reasons.total()
        assert self.candidates == self.documents + rejected + self.dropped, f"candidates were lost or doubled: {self}"
        return {
            "records": self.records,
            "candidates": self.candidates,
            "documents": self.documents,
            "rejected": rejected,
            "duplicates_dropped": self.dropped,
            "reasons": dict(sorted(self.reasons.items())),
            "duplicates": dict(sorted(self.duplicates.items())),
            "notes": dict(sorted(self.notes.items())),
            "passed_over": self.passed_over.report(),
            "stopped_at_max_documents": self.is_capped,
        }


class Collected(NamedTuple):
    """What lies in the folder of documents."""

    num_in_file: dict[str, int]
    """Part file -> documents in it."""
    corpora: dict[str, CorpusCounts]
    """Corpus name -> what became of it."""

    @property
    def num_documents(self) -> int:
        """In all part files."""
        return sum(self.num_in_file.values())

    @property
    def num_train(self) -> int:
        """Of the training split."""
        return sum(number for name, number in self.num_in_file.items() if name.startswith("train/"))


class Sinks(NamedTuple):
    """Where candidates end up."""

    writers: Mapping[str, DocumentWriter]
    """One a split."""
    rejected: RejectedFile
    duplicates: DuplicateFinder


def collect(config: IngestConfig, folder: Path, rejected: Path) -> Collected:
    """Read every corpus into `folder`'s part files, one set a split; rejected records go into the file `rejected`.

    GateRefused when too large a share of one corpus is rejected; that file is written before.
    """
    for corpus in config.corpora:
        check_paths(corpus)
    # Arrow's own allocator keeps what is given back to it, 15 MiB more with every ten times as many records.
    pa.set_memory_pool(pa.system_memory_pool())
    fresh_folder(folder)
    corpora: dict[str, CorpusCounts] = {}
    with ExitStack() as stack:
        writers = {split: stack.enter_context(DocumentWriter(folder, split, config.documents_per_file)) for split in SPLITS}
        sinks = Sinks(writers, stack.enter_context(RejectedFile(rejected)), DuplicateFinder(config.duplicates))
        for corpus in config.corpora:
            corpora[corpus.name] = counts = _take(corpus, config, sinks)
            refuse_above(
                config.max_rejected_share,
                counts.reasons,
                counts.candidates,
                what=f"the corpus {corpus.name!r}",
                file=rejected,
                first=sinks.rejected.first.get(corpus.name, ""),
                key="ingest.max_rejected_share",
            )
    num_in_file = {name: number for writer in writers.values() for name, number in writer.records.items()}
    collected = Collected(num_in_file, corpora)
    written, counted = collected.num_documents, sum(counts.documents for counts in corpora.values())
    assert written == counted, f"{counted} documents were kept and {written} written"
    return collected


def learn_tokenizer(config: IngestConfig, folder: Path, collected: Collected) -> TextTokenizer:
    """A tokenizer of the training split's texts, for held-out text must not shape the vocabulary it is measured with; or a
    given one."""
    if config.tokenizer:
        return given_tokenizer(Path(config.tokenizer))
    with Progress("ingest: texts for the tokenizer", unit="documents", total=collected.num_train) as progress:
        texts = (text for document in progress.over(read_documents(folder, "train")) for text in document.texts)
        return train_tokenizer(texts, config.vocab_size)


def finish(
    config: IngestConfig, folder: Path, collected: Collected, tokenizer: TextTokenizer, ancestors: Mapping[str, str]
) -> dict[str, Any]:
    """Write the documents' table and, last, the manifest; returns the report of the whole ingest.

    ancestors: of the documents, whose table counts the tokenizer's tokens.
    """
    with Progress("ingest: documents described", unit="documents", total=collected.num_documents) as progress:
        table = write_table(folder, (document_row(document, tokenizer) for document in progress.over(_all(folder))))
    assert table.num_rows == collected.num_documents, (
        f"{table.num_rows} of {collected.num_documents} documents are in the table"
    )
    pairs = [list(pair) for pair in kept_out(config)]
    per_split = {split: sum(entry["documents"] for entry in table.counts.get(split, {}).values()) for split in SPLITS}
    write_manifest(
        folder,
        kind=KIND,
        records={**collected.num_in_file, "table.parquet": table.num_rows},
        num_documents=per_split,
        kept_out_pairs=pairs,
        preparation=asdict(preparation_of(config)),
        ancestors=ancestors,
        weights={corpus.name: corpus.weight for corpus in config.corpora},
    )
    return {
        "splits": table.counts,
        "corpora": {name: counts.report() for name, counts in collected.corpora.items()},
        "kept_out_pairs": pairs,
        "vocab_size": tokenizer.vocab_size,
        "image_side_px": config.image_side_px,
    }


def preparation_of(config: IngestConfig) -> Preparation:
    """What the corpus's pictures went through, for those that the model is given later."""
    return Preparation(side_px=config.image_side_px, background=config.images.background, animated=config.images.animated)


def kept_out(config: IngestConfig) -> tuple[Pair, ...]:
    """The digit-colour pairs that no document shows; none without a corpus of scenes."""
    return kept_out_pairs(config.scenes.num_kept_out_pairs, config.seed) if has_scenes(config) else ()


def has_scenes(config: IngestConfig) -> bool:
    """Whether one of the corpora is of the demonstration's scenes."""
    return any(corpus.format == "digit_scenes" for corpus in config.corpora)


def _take(corpus: CorpusConfig, config: IngestConfig, sinks: Sinks) -> CorpusCounts:
    """Read one corpus to its end, or to its cap, into the sinks."""
    reading = Reading()
    counts = CorpusCounts(passed_over=reading.passed_over)
    # One finder for all corpora, for a document may be met again in another one.
    before = Counter(sinks.duplicates.counts)
    with (
        Progress(f"ingest {corpus.name}", unit="records") as progress,
        closing(read_records(corpus, config, reading)) as records,
    ):
        for outcomes in records:
            counts.records += 1
            for outcome in outcomes:
                counts.candidates += 1
                if isinstance(outcome, Rejected):
                    sinks.rejected.add(outcome)
                elif _keep(outcome.document, sinks):
                    counts.documents += 1
                    counts.notes.update(outcome.notes)
                else:
                    counts.dropped += 1
                # What follows in this record is then no candidate, and the sum of the report still holds.
                counts.is_capped = counts.documents == corpus.max_documents > 0
                if counts.is_capped:
                    break
            # Whichever ends it first: the corpus, or its cap.
            progress.at(
                counts.records, share=lambda: max(reading.share(), counts.documents / (corpus.max_documents or math.inf))
            )
            if counts.is_capped:
                break
    counts.reasons = sinks.rejected.reasons.get(corpus.name, Counter())
    counts.duplicates = sinks.duplicates.counts - before
    return counts


def _keep(document: Document, sinks: Sinks) -> bool:
    """Write the document, unless it is a duplicate to be left out."""
    assert document.split is not None, f"{document.key} has no split"
    if sinks.duplicates.see(document).drop:
        return False
    sinks.writers[document.split].add(document)
    return True


def _all(folder: Path) -> Iterator[Document]:
    for split in SPLITS:
        yield from read_documents(folder, split)
