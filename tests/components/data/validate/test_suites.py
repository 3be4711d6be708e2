"""Every rule about documents and latents bites: good tables pass; each fault alone is refused or set aside."""

from __future__ import annotations

import dataclasses
import shutil
from operator import attrgetter
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
from components.data.validate import document_rules, latent_rules
from components.data.validate.results import ValidationResult
from components.data.validate.suites import validate_documents, validate_latents
from core.manifest import read_manifest
from core.tokenizer import load_tokenizer
from pipelines.params import load

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
PARAMS = Path(__file__).parents[4] / "params.yaml"
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


def test_a_minimum_that_duplicates_take_away_counts_them(documents: pd.DataFrame) -> None:
    """Five of eight pictures in validation are also in training: the split misses its minimum for that reason alone."""
    validation, train = (np.flatnonzero(documents["split"] == split) for split in ("validation", "train"))
    number = len(validation) - DOCUMENT_CHECKS.min_documents + 1
    frame = changed(documents, "sha256", documents.loc[train[:number], "sha256"].to_numpy(), row=validation[:number])
    result = validate_documents(
        frame, dataclasses.replace(DOCUMENT_CHECKS, max_quarantined_share=1.0), image_side_px=16, docs=None
    )
    sentence = next(text for text in result.refusals if text.startswith("documents-validation: the number of documents"))
    assert "4, is below validate.documents.min_documents 5" in sentence
    assert f"without the {number} that were set aside before ({number} because held-out documents must not be" in sentence
    assert "ingest.duplicates.exact: drop" in sentence


def test_every_rule_says_its_cause_and_every_bound_its_parameter() -> None:
    """A parameter that is named exists, and has the bound's value."""
    params = load(PARAMS)
    documents, latents = params.validate.documents, params.validate.latents
    manifest = {name: dict.fromkeys(SPLITS, 1) for name in ("num_rows", "num_documents", "packing_fill")}
    manifest |= {"row_length": params.encode.row_length, "num_set_aside": 0}
    rules = [
        *document_rules.rules_of_rows(documents, params.ingest.image_side_px),
        *document_rules.rules_of_measures(),
        *latent_rules.rules_of_rows(latents, params.encode.row_length),
        *latent_rules.rules_of_scale(latents),
        *latent_rules.rules_of_origin(),
        *latent_rules.rules_of_shards(),
        *(rule for split in SPLITS for rule in document_rules.rules_of_split(split, documents)),
        *(rule for split in SPLITS for rule in latent_rules.rules_of_split(split)),
        *(rule for split in SPLITS for rule in latent_rules.rules_of_packing(split, latents, manifest)),
    ]
    named = set()
    for rule in rules:
        assert rule.cause, rule
        for argument, dotted in rule.parameters.items():
            assert abs(rule.arguments[argument]) == attrgetter(dotted)(params)
            named.add(dotted)
    fields = [("documents", documents), ("latents", latents)]
    every = {f"validate.{name}.{field.name}" for name, checks in fields for field in dataclasses.fields(checks)}
    # That of rows of documents is named by the sentence of the share itself.
    assert every - named == {"validate.documents.max_quarantined_share"}


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("key", "made/train-1", "comes more than once"),
        ("key", None, "is missing"),
        ("split", "tain", "is none of train, validation, test"),
        ("split", None, "is missing"),
        ("num_tokens", None, "is missing"),
        ("num_segments", None, "is missing"),
        ("sha256", None, "is missing"),
    ],
)
def test_a_broken_table_of_documents_is_refused(documents: pd.DataFrame, column: str, value: Any, words: str) -> None:
    result = judge_them(changed(documents, column, value))
    assert any(f"column {column} {words}" in sentence for sentence in result.refusals), result.refusals


def test_a_split_without_documents_or_images_is_refused(documents: pd.DataFrame) -> None:
    without_test = judge_them(documents.loc[documents["split"] != "test"])
    assert without_test.refusals[0].startswith(
        "documents-test: the number of documents in the test split, 0, is below validate.documents.min_documents 5: the corpora"
    )
    without_images = judge_them(documents.assign(num_images=0))
    assert [sentence.split(" ")[0] for sentence in without_images.refusals] == [f"documents-{split}:" for split in SPLITS]


def test_columns_of_nulls_are_refused(documents: pd.DataFrame) -> None:
    """Great Expectations by itself calls every rule about the values of such a column a success."""
    for columns in (["key"], ["split", "source", "num_segments", "num_tokens", "num_images", "sha256"]):
        result = judge_them(documents.assign(**dict.fromkeys(columns)))
        for column in columns:
            assert any(f"column {column} is missing in" in text for text in result.refusals), column


def test_pictures_that_were_not_measured_are_refused(documents: pd.DataFrame) -> None:
    columns = ["width_px", "height_px", "std_pixel"]
    for rows in (slice(None), 0):
        result = judge_them(changed(documents, columns, np.nan, row=rows))
        starts = [text.partition(" is missing in ")[0] for text in result.refusals]
        assert starts == [f"documents-with-pictures: column {column}" for column in columns]


def test_an_empty_corpus_is_refused(documents: pd.DataFrame) -> None:
    result = judge_them(documents.iloc[:0])
    for split in SPLITS:
        assert any(text.startswith(f"documents-{split}: the number of documents") for text in result.refusals)


def test_documents_that_come_again_are_told_and_kept(documents: pd.DataFrame) -> None:
    train = documents["split"] == "train"
    repeated = documents.assign(sha256=documents["sha256"].where(~train, documents.loc[train, "sha256"].iloc[0]))
    result = judge_them(repeated)
    assert result.passed and not result.quarantined
    (sentence,) = result.warnings
    assert "content of their own" in sentence and "is below validate.documents.min_unique_share 0.9" in sentence
    assert "learnt by heart" in sentence and "ingest.duplicates.exact: drop" in sentence
    assert not judge_them(documents).warnings


@pytest.mark.parametrize("column", ["key", "split", "num_tokens", "std_pixel"])
def test_a_missing_column_is_refused(documents: pd.DataFrame, column: str) -> None:
    result = judge_them(documents.drop(columns=column))
    assert result.refusals[0].startswith(f"documents: columns are missing: {column}: the table was changed")


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
        (
            {"num_rows": 2},
            "packing-train: the number of rows of the train split, 2, is below validate.latents.min_rows 3: 70 documents",
        ),
        ({"packing_fill": 0.4}, "the packing fill, 0.4, is below validate.latents.min_packing_fill 0.5: rows of 80 hold "),
        ({"num_set_aside": 20}, "max_quarantined_share 0.1: 20 documents with images are longer than a row of 80; raise"),
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
        assert any(text.startswith(f"latents-with-pictures: column {column} is missing in ") for text in refusals), column


@pytest.mark.parametrize(
    ("factor", "bound"),
    [(0.18, "below validate.latents.min_overall_std 0.3"), (5.5, "above validate.latents.max_overall_std 2.0")],
)
def test_latents_of_another_scale_are_refused_though_no_single_one_strays(latents: Latents, factor: float, bound: str) -> None:
    """The factor of a well-known autoencoder, forgotten or applied twice."""
    stds = latents.table[["latent_std_min", "latent_std_max"]] / latents.table["latent_std_max"].mean()
    latents.table[["latent_std_min", "latent_std_max"]] = stds
    checks = dataclasses.replace(LATENT_CHECKS, min_overall_std=0.3, max_overall_std=2.0)
    assert latents.validate_table(checks).passed
    latents.table[["latent_std_min", "latent_std_max"]] = stds * factor
    result = latents.validate_table(checks)
    (sentence,) = result.refusals
    assert sentence.startswith(f"latents-with-pictures: the deviation of latents, {factor}, is {bound}: latents of another")
    assert not result.quarantined


def test_latents_of_another_autoencoder_are_refused(latents: Latents) -> None:
    latents.autoencoder = "0" * 64
    (sentence,) = latents.validate_table().refusals
    assert sentence.startswith("origin: made_by and decoded_by differ")
    assert "another autoencoder" in sentence


def test_latents_of_another_shape_are_refused(latents: Latents, tmp_path: Path) -> None:
    latents.folder = Path(shutil.copytree(latents.folder, tmp_path / "latents"))
    path = shard_paths(latents.folder, "train")[0]
    shard = open_shard(path)
    write_shard(path, shard._replace(latents=shard.latents[:, :, :2].copy()))
    (sentence,) = latents.validate_table().refusals
    assert sentence.startswith("shards: shape and shape_expected differ in 1 row")
    assert str(path.relative_to(latents.folder)) in sentence


def test_positions_that_do_not_fit_the_shape_are_refused(latents: Latents) -> None:
    latents.manifest["patch_side"] = 1
    (sentence,) = latents.validate_table().refusals
    assert "num_positions and num_positions_expected differ" in sentence
