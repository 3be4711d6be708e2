"""Inputs as people have them: what is read, what is rejected, and what is said, for each; and nothing is lost in between."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from components.data.config import IngestConfig
from components.data.documents import SPLITS, Document, read_documents
from components.data.ingest.corpora import CorpusCounts, collect
from components.data.ingest.readers.locating import NAMED_PICTURES
from core.errors import BadInput, GateRefused
from tests.components.data.corpora import config_for, corpus_of
from tests.components.data.real_inputs import Case
from tests.components.data.real_inputs_files import FILES_CASES
from tests.components.data.real_inputs_shapes import SHAPES_CASES
from tests.components.data.real_inputs_tables import TABLES_CASES

CASES = (*FILES_CASES, *TABLES_CASES, *SHAPES_CASES)
ALL_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP")


def configured(entry: dict[str, Any]) -> IngestConfig:
    """With every format listed, because what is not listed is one of the troubles."""
    config = config_for(corpus_of(**entry))
    return dataclasses.replace(config, images=dataclasses.replace(config.images, formats=ALL_FORMATS))


def said(counts: CorpusCounts) -> str:
    """Everything that the stage tells of a corpus: what it passed over, why records were rejected, and notes."""
    told = {**counts.reasons, **counts.notes}
    passed_over = [sentence for sentence in counts.passed_over.sentences() if NAMED_PICTURES not in sentence]
    return "; ".join([*passed_over, *sorted(f"{number} {what}" for what, number in told.items())])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_read_rejected_and_said(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Starting processes for a few pictures takes longer than the pictures.
    monkeypatch.setenv("TRANSFUSION_NUM_DECODERS", "0")
    (tmp_path / "in").mkdir()
    config = configured(case.make(tmp_path / "in"))
    out, quarantine = tmp_path / "out", tmp_path / "rejected.jsonl"
    if case.refused:
        with pytest.raises((BadInput, GateRefused), match=case.refused):
            collect(config, out, quarantine)
        if case.rejected:
            assert len(quarantine.read_text().splitlines()) == case.rejected
        return
    counts = collect(config, out, quarantine).corpora["mine"]
    documents = [document for split in SPLITS for document in read_documents(out, split)]
    print(said(counts))
    assert (len(documents), sum(len(document.images) for document in documents)) == (case.documents, case.images)
    assert len([json.loads(line) for line in quarantine.read_text().splitlines()]) == case.rejected
    assert counts.candidates == counts.documents + counts.reasons.total() + counts.dropped
    assert re.search(case.says, said(counts)) if case.says else said(counts) == ""
    assert_texts_are_clean(documents)
    assert all(re.fullmatch(case.texts or "(?s).*", text) for document in documents for text in document.texts)


def assert_texts_are_clean(documents: list[Document]) -> None:
    """No mark of an encoding, and no end of a line, is trained on; a document says what was written for it."""
    for document in documents:
        for text in document.texts:
            assert text == text.strip() and "\r" not in text and "\ufeff" not in text
