"""How do all corpora become one folder of documents and a tokenizer, without one of them held in memory?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from components.data.config import IngestConfig
from components.data.documents import SPLITS, DocumentWriter, read_documents
from components.data.documents_table import counts, document_row, write_table
from components.data.readers import FILE_READERS, corpus_files, read_corpus
from components.data.rejected import Rejected, refuse_above, write_rejected
from components.data.scenes import Pair, kept_out_pairs
from components.data.tokenizer import TextTokenizer, train_tokenizer
from components.runtime.files import fresh_folder, write_manifest

KIND = "documents"
PROGRESS_EVERY = 5000


class Collected(NamedTuple):
    """records: part file -> documents in it. rejected: rows that cannot be used. kept: corpus name -> documents."""

    records: dict[str, int]
    rejected: list[Rejected]
    kept: Counter[str]


def collect(config: IngestConfig, folder: Path, quarantine: Path) -> Collected:
    """Read every corpus into `folder`'s part files, one set a split; rejected rows go into the file `quarantine`.

    GateRefused when too large a share of one corpus is rejected; the quarantine file is written before.
    """
    for corpus in config.corpora:
        if corpus.format in FILE_READERS:
            # A mistyped path must be found before the documents of an earlier run are removed.
            corpus_files(corpus)
    fresh_folder(folder)
    rejected: list[Rejected] = []
    kept: Counter[str] = Counter()
    with ExitStack() as stack:
        writers = {split: stack.enter_context(DocumentWriter(folder, split, config.documents_per_file)) for split in SPLITS}
        stack.callback(lambda: write_rejected(quarantine, rejected))
        for corpus in config.corpora:
            started_s, of_corpus = time.monotonic(), len(rejected)
            for number, found in enumerate(read_corpus(corpus, config), start=1):
                if isinstance(found, Rejected):
                    rejected.append(found)
                else:
                    assert found.split is not None, f"{found.key} has no split"
                    writers[found.split].add(found)
                    kept[corpus.name] += 1
                if number % PROGRESS_EVERY == 0:
                    print(
                        f"{corpus.name}: {number} rows, {number / (time.monotonic() - started_s):.0f} a second",
                        flush=True,
                    )
            refuse_above(
                config.max_quarantined_share,
                rejected[of_corpus:],
                kept[corpus.name],
                what=f"the corpus {corpus.name!r}",
                quarantine=quarantine,
                key="ingest.max_quarantined_share",
            )
    records = {name: number for writer in writers.values() for name, number in writer.records.items()}
    return Collected(records, rejected, kept)


def learn_tokenizer(config: IngestConfig, documents: Path) -> TextTokenizer:
    """A tokenizer of the training split's texts: held-out text must not shape the vocabulary it is measured with."""
    return train_tokenizer(
        (text for document in read_documents(documents, "train") for text in document.texts), config.vocab_size
    )


def finish(
    config: IngestConfig, folder: Path, collected: Collected, tokenizer: TextTokenizer, tokenizer_sha256: str
) -> dict[str, Any]:
    """Write the documents' table and, last, the manifest; returns the report of the whole ingest."""
    rows = (document_row(document, tokenizer) for split in SPLITS for document in read_documents(folder, split))
    table = write_table(folder, rows)
    found = counts(table)
    pairs = [list(pair) for pair in kept_out(config)]
    records = {**collected.records, "table.parquet": table.num_rows}
    per_split = {split: sum(entry["documents"] for entry in found.get(split, {}).values()) for split in SPLITS}
    write_manifest(
        folder,
        kind=KIND,
        records=records,
        num_documents=per_split,
        kept_out_pairs=pairs,
        image_side_px=config.image_side_px,
        tokenizer_sha256=tokenizer_sha256,
    )
    dropped = {corpus.name: dict(_reasons(collected.rejected, corpus.name)) for corpus in config.corpora}
    return {
        "splits": found,
        "dropped": dropped,
        "kept_out_pairs": pairs,
        "vocab_size": tokenizer.vocab_size,
        "image_side_px": config.image_side_px,
    }


def kept_out(config: IngestConfig) -> tuple[Pair, ...]:
    """The digit-colour pairs that no document shows; none without a corpus of scenes."""
    return kept_out_pairs(config.scenes.num_kept_out_pairs, config.seed) if has_scenes(config) else ()


def has_scenes(config: IngestConfig) -> bool:
    return any(corpus.format == "digit_scenes" for corpus in config.corpora)


def _reasons(rejected: list[Rejected], source: str) -> Iterator[tuple[str, int]]:
    yield from sorted(Counter(row.reason for row in rejected if row.source == source).items())
