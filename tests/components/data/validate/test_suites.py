"""Every rule about documents and latents bites: good tables pass; each fault alone is refused or set aside."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from components.data.config import DocumentChecks, LatentChecks
from components.data.documents import SPLITS, read_documents
from components.data.documents_table import document_row, write_table
from components.data.shards import open_shard, shard_paths, write_shard
from components.data.validate.results import ValidationResult
from components.data.validate.suites import validate_documents, validate_latents
from core.manifest import read_manifest
from core.tokenizer import load_tokenizer

DOCUMENT_CHECKS = DocumentChecks(
    min_documents=5, min_images=4, max_tokens=5000, min_unique_share=0.9, max_quarantined_share=0.1
)
LATENT_CHECKS = LatentChecks(
    min_rows=3,
    max_abs_mean=50,
    min_std=0.0,
    max_std=50,
    max_abs_overall_mean=40,
    min_overall_std=0.0,
    max_overall_std=40,
    min_packing_fill=0.5,
    max_quarantined_share=0.1,
)
HUGE = 10**6
LENIENT = dataclasses.replace(DOCUMENT_CHECKS, max_quarantined_share=0.2)


@pytest.fixture(scope="module")
def documents(encoded, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The table that ingest would write of the shared documents."""
    tokenizer = load_tokenizer(encoded.sources.tokenizer)
    found = (document for split in SPLITS for document in read_documents(encoded.sources.documents, split))
    folder = tmp_path_factory.mktemp("table")
    write_table(folder, (document_row(document, tokenizer) for document in found))
    return pd.read_parquet(folder / "table.parquet")


def judge_them(frame: pd.DataFrame) -> ValidationResult:
    return validate_documents(frame, DOCUMENT_CHECKS, image_side_px=16, docs=None)


def changed(frame: pd.DataFrame, column: str | list[str], value: Any, row: Any = 0) -> pd.DataFrame:
    frame = frame.copy()
    frame.loc[row, column] = value
    return frame


def test_good_documents_pass(documents: pd.DataFrame) -> None:
    result = judge_them(documents)
    assert result.passed, result.refusals
    assert not result.quarantined
    assert all(result.reason for result in result.results)


def test_bad_documents_are_set_aside_each_with_its_reason(documents: pd.DataFrame) -> None:
    faults = {
        "num_segments": (0, "without segments"),
        "num_tokens": (2, "less than bos, one token and eos"),
        "width_px": (15, "16 px alone"),
        "height_px": (17, "16 px alone"),
        "std_pixel": (0.0, "one colour alone"),
    }
    rows = np.flatnonzero(documents["num_images"])[: len(faults)].tolist()
    frame = changed(documents, "num_tokens", HUGE, row=len(documents) - 1)
    for row, (column, (value, _)) in zip(rows, faults.items(), strict=True):
        frame = changed(frame, column, value, row=row)
    result = validate_documents(frame, LENIENT, image_side_px=16, docs=None)
    assert result.passed
    *entries, last = result.quarantined
    assert last.key == documents["key"].iloc[-1]
    assert last.reason.startswith(f"num_uncut_tokens = {HUGE}") and "longer than max_tokens" in last.reason
    for entry, row, (column, (value, reason)) in zip(entries, rows, faults.items(), strict=True):
        assert entry.key == documents.loc[row, "key"]
        assert entry.reason.startswith(f"{column} = {value}") and reason in entry.reason


def test_texts_are_cut_later_and_may_be_long(documents: pd.DataFrame) -> None:
    """As encode_part does: only a document with images cannot be cut."""
    texts = np.flatnonzero(documents["num_images"] == 0)[:2]
    result = judge_them(changed(documents, "num_tokens", HUGE, row=texts))
    assert result.passed and not result.quarantined
    at_the_limit = np.flatnonzero(documents["num_images"])[0]
    for number, num_quarantined in ((DOCUMENT_CHECKS.max_tokens, 0), (DOCUMENT_CHECKS.max_tokens + 1, 1)):
        result = judge_them(changed(documents, "num_tokens", number, row=at_the_limit))
        assert len(result.quarantined) == num_quarantined


def test_text_alone_is_refused_with_what_to_do(documents: pd.DataFrame) -> None:
    """The autoencoder would refuse it a stage later; and no parameter says otherwise (tests/pipelines/test_params.py)."""
    result = validate_documents(
        documents.loc[documents["num_images"] == 0],
        dataclasses.replace(DOCUMENT_CHECKS, min_documents=1, min_images=1),
        image_side_px=16,
        docs=None,
    )
    assert any("add a corpus with images to ingest.corpora" in sentence for sentence in result.refusals), result.refusals


def test_content_in_two_splits_is_set_aside_in_both(documents: pd.DataFrame) -> None:
    held_out = documents["split"].tolist().index("test")
    result = judge_them(changed(documents, "sha256", documents.loc[held_out, "sha256"]))
    assert [entry.key for entry in result.quarantined] == ["made/train-0", "made/test-0"]


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
    result = judge_them(changed(documents, column, value))
    assert any(words in sentence and f"column {column}" in sentence for sentence in result.refusals), result.refusals


def test_a_split_without_documents_or_images_is_refused(documents: pd.DataFrame) -> None:
    without_test = judge_them(documents.loc[documents["split"] != "test"])
    assert without_test.refusals[0].startswith(
        "documents-test: expect_table_row_count_to_be_between (min_value 5) failed, observed 0"
    )
    without_images = judge_them(documents.assign(num_images=0))
    assert [sentence.split(" ")[0] for sentence in without_images.refusals] == [f"documents-{split}:" for split in SPLITS]


def test_columns_of_nulls_are_refused(documents: pd.DataFrame) -> None:
    """Great Expectations by itself calls every rule about the values of such a column a success."""
    for columns in (["key"], ["split", "source", "num_segments", "num_tokens", "num_images", "sha256"]):
        result = judge_them(documents.assign(**dict.fromkeys(columns)))
        for column in columns:
            assert any("to_not_be_null" in text and f"column {column}" in text for text in result.refusals), column


def test_pictures_that_were_not_measured_are_refused(documents: pd.DataFrame) -> None:
    columns = ["width_px", "height_px", "std_pixel"]
    for rows in (slice(None), 0):
        result = judge_them(changed(documents, columns, np.nan, row=rows))
        starts = [text.split(")")[0] for text in result.refusals]
        rule = "documents-with-pictures: expect_column_values_to_not_be_null (column "
        assert starts == [rule + column for column in columns]


def test_an_empty_corpus_is_refused(documents: pd.DataFrame) -> None:
    result = judge_them(documents.iloc[:0])
    for split in SPLITS:
        assert any(text.startswith(f"documents-{split}: expect_table_row_count") for text in result.refusals)


def test_documents_that_come_again_are_told_and_kept(documents: pd.DataFrame) -> None:
    train = documents["split"] == "train"
    repeated = documents.assign(sha256=documents["sha256"].where(~train, documents.loc[train, "sha256"].iloc[0]))
    result = judge_them(repeated)
    assert result.passed and not result.quarantined
    (sentence,) = result.warnings
    assert "column sha256, min_value 0.9" in sentence and "learnt by heart" in sentence
    assert not judge_them(documents).warnings


@pytest.mark.parametrize("column", ["key", "split", "num_tokens", "std_pixel"])
def test_a_missing_column_is_refused(documents: pd.DataFrame, column: str) -> None:
    result = judge_them(documents.drop(columns=column))
    assert "expect_table_columns_to_match_set" in result.refusals[0]


class Latents:
    """What the encode stage wrote: table, manifest and shards, to be changed before they are judged."""

    def __init__(self, encoded) -> None:
        self.folder: Path = encoded.latents
        self.table: pd.DataFrame = pq.read_table(self.folder / "table.parquet").to_pandas()
        self.manifest: dict[str, Any] = read_manifest(self.folder, kind="latents")
        self.autoencoder: str = self.manifest["ancestors"]["autoencoder"]

    def validate_table(self, checks: LatentChecks = LATENT_CHECKS) -> ValidationResult:
        return validate_latents(self.folder, self.table, self.manifest, checks, autoencoder=self.autoencoder, docs=None)


@pytest.fixture
def latents(encoded) -> Latents:
    return Latents(encoded)


def test_good_latents_pass(latents: Latents) -> None:
    result = latents.validate_table()
    assert result.passed, result.refusals
    assert not result.quarantined
    assert all(result.reason for result in result.results)


def test_bad_latents_are_set_aside_each_with_its_reason(latents: Latents) -> None:
    faults = {"latent_finite": False, "latent_mean": -51.0, "latent_std_min": -0.1, "latent_std_max": 51.0}
    rows = np.flatnonzero(latents.table["num_images"])[: len(faults)].tolist()
    for row, (column, value) in zip(rows, faults.items(), strict=True):
        latents.table = changed(latents.table, column, value, row=row)
    result = latents.validate_table()
    assert result.passed
    for entry, row, (column, value) in zip(result.quarantined, rows, faults.items(), strict=True):
        assert entry.key == latents.table.loc[row, "key"]
        assert entry.reason.startswith(f"{column} = {value}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_rows": 2}, "packing-train: expect_column_values_to_be_between (column num_rows, min_value 3)"),
        ({"packing_fill": 0.4}, "column packing_fill, min_value 0.5"),
        ({"num_set_aside": 20}, "column share_set_aside, max_value 0.1"),
    ],
)
def test_what_the_manifest_says_of_the_rows_is_checked(latents: Latents, change: dict[str, Any], words: str) -> None:
    latents.manifest |= {
        name: latents.manifest[name] | {"train": value} if name != "num_set_aside" else value for name, value in change.items()
    }
    (sentence,) = latents.validate_table().refusals
    assert words in sentence


@pytest.mark.parametrize(
    ("column", "value"), [("key", "made/train-1"), ("num_positions", 81), ("split", "x"), ("latent_finite", None)]
)
def test_a_broken_table_of_latents_is_refused(latents: Latents, column: str, value: Any) -> None:
    if value is None:
        latents.table[column] = latents.table[column].astype(object)
    latents.table = changed(latents.table, column, value)
    result = latents.validate_table()
    assert any(f"column {column}" in sentence for sentence in result.refusals), result.refusals


def test_latents_that_were_not_measured_are_refused(latents: Latents) -> None:
    columns = ["latent_mean", "latent_std_min", "latent_std_max"]
    latents.table = latents.table.assign(**dict.fromkeys(columns, np.nan))
    refusals = latents.validate_table().refusals
    for column in columns:
        rule = f"latents-with-pictures: expect_column_values_to_not_be_null (column {column})"
        assert any(text.startswith(rule) for text in refusals), column


@pytest.mark.parametrize("factor", [0.18, 5.5])
def test_latents_of_another_scale_are_refused_though_no_single_one_strays(latents: Latents, factor: float) -> None:
    """The factor of a well-known autoencoder, forgotten or applied twice."""
    stds = latents.table[["latent_std_min", "latent_std_max"]] / latents.table["latent_std_max"].mean()
    latents.table[["latent_std_min", "latent_std_max"]] = stds
    checks = dataclasses.replace(LATENT_CHECKS, min_overall_std=0.3, max_overall_std=2.0)
    assert latents.validate_table(checks).passed
    latents.table[["latent_std_min", "latent_std_max"]] = stds * factor
    result = latents.validate_table(checks)
    (sentence,) = result.refusals
    assert sentence.startswith("latents-with-pictures: expect_column_mean_to_be_between (column latent_std_max")
    assert not result.quarantined


def test_latents_of_another_autoencoder_are_refused(latents: Latents) -> None:
    latents.autoencoder = "0" * 64
    (sentence,) = latents.validate_table().refusals
    assert sentence.startswith("origin: expect_column_pair_values_to_be_equal")
    assert "another autoencoder" in sentence


def test_latents_of_another_shape_are_refused(latents: Latents, tmp_path: Path) -> None:
    latents.folder = Path(shutil.copytree(latents.folder, tmp_path / "latents"))
    path = shard_paths(latents.folder, "train")[0]
    shard = open_shard(path)
    write_shard(path, shard._replace(latents=shard.latents[:, :, :2].copy()))
    (sentence,) = latents.validate_table().refusals
    assert sentence.startswith("shards: expect_column_pair_values_to_be_equal")
    assert str(path.relative_to(latents.folder)) in sentence


def test_positions_that_do_not_fit_the_shape_are_refused(latents: Latents) -> None:
    latents.manifest["patch_side"] = 1
    (sentence,) = latents.validate_table().refusals
    assert "column_A num_positions, column_B num_positions_expected" in sentence
