"""The first training documents of each corpus, to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from components.data.documents import Document, document_parts, read_part
from components.report.run_files import Example
from core.data_uri import picture_uri
from core.png import decode_png

NUM_EXAMPLES, MOST_PICTURES = 6, 4
# Of a text, for a picture's caption or a passage.
MOST_CHARACTERS = 400


def read_examples(documents: Path) -> Mapping[str, Sequence[Example]]:
    """Of each corpus the first NUM_EXAMPLES, in the corpora's order."""
    found: dict[str, list[Example]] = {}
    for part in document_parts(documents, "train"):
        # A column alone, so that of a large corpus only the parts in which one begins are read.
        sources = set(pq.read_table(part, columns=["source"])["source"].unique().to_pylist())
        wanted = {source for source in sources if len(found.get(source, ())) < NUM_EXAMPLES}
        if not wanted:
            continue
        for document in read_part(part):
            entries = found.setdefault(document.source, [])
            if len(entries) < NUM_EXAMPLES:
                entries.append(example(document))
    return found


def example(document: Document) -> Example:
    """What is shown of a document: the beginnings of its texts, and its first pictures."""
    texts = [text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} ..." for text in document.texts]
    return Example(texts, [picture_uri(decode_png(image)) for image in document.images[:MOST_PICTURES]])
