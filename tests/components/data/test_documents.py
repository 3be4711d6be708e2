"""Documents come back as they were written, in order, and a damaged part file is refused by name."""

from __future__ import annotations

import random
import secrets
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.data.documents import (
    GROUP_ROWS,
    SPLITS,
    Document,
    DocumentWriter,
    ImageSegment,
    TextSegment,
    document_parts,
    read_documents,
    write_documents,
)
from core.errors import BadInput


def make(number: int, split: str = "train") -> Document:
    segments = (
        TextSegment(f"caption {number} \u00e9\U0001f600"),
        ImageSegment(bytes([0, 255, number])),
        TextSegment(""),
    )
    return Document(key=f"k{number}", source="s", split=split, segments=segments, meta={"scans": [number], "objects": []})


@pytest.mark.parametrize(("number", "parts"), [(0, 0), (1, 1), (4, 2), (5, 3)])
def test_documents_come_back_equal_and_in_order(tmp_path: Path, number: int, parts: int) -> None:
    documents = [make(index) for index in range(number)]
    records = write_documents(tmp_path, "train", documents, 2)
    assert list(read_documents(tmp_path, "train")) == documents
    assert [path.relative_to(tmp_path).as_posix() for path in document_parts(tmp_path, "train")] == list(records)
    assert len(records) == parts
    assert sum(records.values()) == number


def test_splits_do_not_mix(tmp_path: Path) -> None:
    for split in SPLITS:
        write_documents(tmp_path, split, [make(1, split)], 8)
    assert [document.split for split in SPLITS for document in read_documents(tmp_path, split)] == list(SPLITS)
    with pytest.raises(AssertionError, match="k1 is of test"):
        write_documents(tmp_path, "train", [make(1, "test")], 8)


def test_a_part_is_written_a_row_group_at_a_time(tmp_path: Path) -> None:
    """However many documents a part has, and whatever is not complete has no place in the records."""
    seed = secrets.randbits(20)
    print(f"seed {seed}")
    draw = random.Random(seed)
    pictures = [ImageSegment(draw.randbytes(100)) for _ in range(1300)]
    documents = [
        Document(key=str(number), source="s", split="train", segments=(picture,)) for number, picture in enumerate(pictures)
    ]
    with DocumentWriter(tmp_path, "train", 1200) as writer:
        for document in documents[:GROUP_ROWS]:
            writer.add(document)
        (path,) = document_parts(tmp_path, "train")
        assert path.stat().st_size > 100 * GROUP_ROWS and not writer.records
        for document in documents[GROUP_ROWS:]:
            writer.add(document)
    groups = pq.ParquetFile(path).metadata
    assert [groups.row_group(index).num_rows for index in range(groups.num_row_groups)] == [512, 512, 176]
    assert writer.records == {"train/part-00000.parquet": 1200, "train/part-00001.parquet": 100}
    assert list(read_documents(tmp_path, "train")) == documents


def test_same_documents_give_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_documents(tmp_path / folder, "train", [make(index) for index in range(20)], 16)
    first, second = ([path.read_bytes() for path in document_parts(tmp_path / folder, "train")] for folder in ("a", "b"))
    assert first == second


def test_every_damage_to_a_part_is_refused_or_harmless(tmp_path: Path) -> None:
    documents = [make(index) for index in range(8)]
    write_documents(tmp_path, "train", documents, 8)
    (path,) = document_parts(tmp_path, "train")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=path.name):
        list(read_documents(tmp_path, "train"))
    # A flipped byte in the data pages: page checksums find it.
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(BadInput, match=path.name):
        list(read_documents(tmp_path, "train"))
