"""Does every rule about documents and latents bite? Good tables pass; each fault alone is refused or set aside."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from components.data.config import DocumentChecks, LatentChecks
from components.data.documents import SPLITS, read_documents
from components.data.documents_table import document_row, write_table
from components.data.expectations import Verdict
from components.data.suites import judge_documents, judge_latents
from components.data.tokenizer import load_tokenizer
from components.runtime.files import read_manifest

DOCUMENT_CHECKS = DocumentChecks(min_documents=5, min_images=4, max_tokens=5000, max_quarantined_share=0.1)
LATENT_CHECKS = LatentChecks(
    min_rows=3, max_abs_mean=50, min_std=0.0, max_std=50, min_packing_fill=0.5, max_quarantined_share=0.1
)
HUGE = 10**6


@pytest.fixture(scope="module")
def documents(encoded, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The table that ingest would write of the shared documents."""
    tokenizer = load_tokenizer(encoded.sources.tokenizer)
    found = (document for split in SPLITS for document in read_documents(encoded.sources.documents, split))
    folder = tmp_path_factory.mktemp("table")
    write_table(folder, (document_row(document, tokenizer) for document in found))
    return pd.read_parquet(folder / "table.parquet")


def judge_them(frame: pd.DataFrame) -> Verdict:
    return judge_documents(frame, DOCUMENT_CHECKS, image_side_px=16, docs=None)


def changed(frame: pd.DataFrame, column: str, value: Any, row: int = 0) -> pd.DataFrame:
    frame = frame.copy()
    frame.loc[row, column] = value
    return frame


def test_good_documents_pass(documents: pd.DataFrame) -> None:
    verdict = judge_them(documents)
    assert verdict.passed, verdict.refusals
    assert not verdict.quarantined
    assert all(finding.reason for finding in verdict.findings)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("num_segments", 0, "without segments"),
        ("num_tokens", 2, "less than bos, one token and eos"),
        ("num_tokens", HUGE, "longer than max_tokens"),
        ("width_px", 15, "16 px alone"),
        ("height_px", 17, "16 px alone"),
        ("std_pixel", 0.0, "one colour alone"),
    ],
)
def test_a_bad_document_is_set_aside(documents: pd.DataFrame, column: str, value: Any, reason: str) -> None:
    verdict = judge_them(changed(documents, column, value))
    (entry,) = verdict.quarantined
    assert verdict.passed
    assert entry.key == "made/train-0"
    assert entry.reason.startswith(f"{column} = {value}")
    assert reason in entry.reason


def test_content_in_two_splits_is_set_aside_in_both(documents: pd.DataFrame) -> None:
    held_out = documents["split"].tolist().index("test")
    verdict = judge_them(changed(documents, "sha256", documents.loc[held_out, "sha256"]))
    assert [entry.key for entry in verdict.quarantined] == ["made/train-0", "made/test-0"]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("key", "made/train-1", "to_be_unique"),
        ("key", None, "to_not_be_null"),
        ("split", "tain", "to_be_in_set"),
        ("split", None, "to_not_be_null"),
        ("num_tokens", None, "to_not_be_null"),
        ("num_segments", None, "to_not_be_null"),
        ("sha256", None, "to_not_be_null"),
    ],
)
def test_a_broken_table_of_documents_is_refused(documents: pd.DataFrame, column: str, value: Any, words: str) -> None:
    verdict = judge_them(changed(documents, column, value))
    assert any(words in sentence and f"column {column}" in sentence for sentence in verdict.refusals), verdict.refusals


def test_a_split_without_documents_or_images_is_refused(documents: pd.DataFrame) -> None:
    without_test = judge_them(documents.loc[documents["split"] != "test"])
    assert without_test.refusals[0].startswith(
        "documents-test: expect_table_row_count_to_be_between (min_value 5) failed, observed 0"
    )
    without_images = judge_them(documents.assign(num_images=0))
    assert [sentence.split(" ")[0] for sentence in without_images.refusals] == [f"documents-{split}:" for split in SPLITS]


@pytest.mark.parametrize("column", ["key", "split", "num_tokens", "std_pixel"])
def test_a_missing_column_is_refused(documents: pd.DataFrame, column: str) -> None:
    verdict = judge_them(documents.drop(columns=column))
    assert "expect_table_columns_to_match_set" in verdict.refusals[0]


def latents(encoded) -> tuple[pd.DataFrame, dict[str, Any]]:
    return pq.read_table(encoded.latents / "table.parquet").to_pandas(), read_manifest(encoded.latents, kind="latents")


def test_good_latents_pass(encoded) -> None:
    table, manifest = latents(encoded)
    verdict = judge_latents(table, manifest, LATENT_CHECKS, docs=None)
    assert verdict.passed, verdict.refusals
    assert not verdict.quarantined


@pytest.mark.parametrize(
    ("column", "value"),
    [("latent_finite", False), ("latent_mean", -51.0), ("latent_std_min", -0.1), ("latent_std_max", 51.0)],
)
def test_a_bad_latent_is_set_aside(encoded, column: str, value: Any) -> None:
    table, manifest = latents(encoded)
    verdict = judge_latents(changed(table, column, value), manifest, LATENT_CHECKS, docs=None)
    (entry,) = verdict.quarantined
    assert verdict.passed
    assert entry.key == "made/train-0"
    assert entry.reason.startswith(f"{column} = {value}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_rows": 2}, "packing-train: expect_column_values_to_be_between (column num_rows, min_value 3)"),
        ({"packing_fill": 0.4}, "column packing_fill, min_value 0.5"),
        ({"num_set_aside": 20}, "column share_set_aside, max_value 0.1"),
    ],
)
def test_what_the_manifest_says_of_the_rows_is_checked(encoded, change: dict[str, Any], words: str) -> None:
    table, manifest = latents(encoded)
    manifest |= {
        name: manifest[name] | {"train": value} if name != "num_set_aside" else value for name, value in change.items()
    }
    (sentence,) = judge_latents(table, manifest, LATENT_CHECKS, docs=None).refusals
    assert words in sentence


@pytest.mark.parametrize(
    ("column", "value"), [("key", "made/train-1"), ("num_positions", 81), ("split", "x"), ("latent_finite", None)]
)
def test_a_broken_table_of_latents_is_refused(encoded, column: str, value: Any) -> None:
    table, manifest = latents(encoded)
    if value is None:
        table[column] = table[column].astype(object)
    verdict = judge_latents(changed(table, column, value), manifest, LATENT_CHECKS, docs=None)
    assert any(f"column {column}" in sentence for sentence in verdict.refusals), verdict.refusals
