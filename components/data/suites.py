"""What must hold of documents before they are encoded, and of latents before training? Every rule with its reason.

A column that is null (a picture's size where there is no picture) is not looked at by a rule on its values; not-null
rules stand apart. Great Expectations calls an empty table a success, so every split has a floor on its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.config import DocumentChecks, LatentChecks
from components.data.documents import SPLITS
from components.data.expectations import Check, Floor, Rule, Verdict, judge, row_rule, table_rule

if TYPE_CHECKING:
    import pandas as pd

VALUES, NOT_NULL, UNIQUE = (
    "ExpectColumnValuesToBeBetween",
    "ExpectColumnValuesToNotBeNull",
    "ExpectColumnValuesToBeUnique",
)
IN_SET, SUM, ROWS = "ExpectColumnValuesToBeInSet", "ExpectColumnSumToBeBetween", "ExpectTableRowCountToBeBetween"
COLUMNS = "ExpectTableColumnsToMatchSet"

DOCUMENT_COLUMNS = (
    "key",
    "split",
    "source",
    "num_segments",
    "num_tokens",
    "num_images",
    "width_px",
    "height_px",
    "std_pixel",
    "sha256",
)
LATENT_COLUMNS = (
    *("key", "document", "split", "num_tokens", "num_images", "num_positions"),
    *("latent_finite", "latent_mean", "latent_std_min", "latent_std_max"),
)


def judge_documents(table: pd.DataFrame, checks: DocumentChecks, *, image_side_px: int, docs: Path | None) -> Verdict:
    """The verdict on the documents' table (components/data/documents_table.py)."""
    floors = [Floor(f"documents-{split}", {"split": split}, _document_floors(split, checks)) for split in SPLITS]
    rows = Check("documents", _with_content_splits(table), _document_rules(checks, image_side_px))
    return judge(rows, floors, max_quarantined_share=checks.max_quarantined_share, docs=docs)


def judge_latents(table: pd.DataFrame, manifest: Mapping[str, Any], checks: LatentChecks, *, docs: Path | None) -> Verdict:
    """The verdict on the table of encoded documents and on what the manifest says of the packed rows."""
    rows = Check("latents", table, _latent_rules(checks, manifest["row_length"]))
    floors = [Floor(f"latents-{split}", {"split": split}, _row_floors(1, split)) for split in SPLITS]
    packing = [Check(f"packing-{split}", _packing_table(manifest, split), _packing_rules(split, checks)) for split in SPLITS]
    return judge(rows, floors, packing, max_quarantined_share=checks.max_quarantined_share, docs=docs)


def _with_content_splits(table: pd.DataFrame) -> pd.DataFrame:
    """The table with num_content_splits: in how many splits a document of equal content stands."""
    if not {"sha256", "split"} <= set(table.columns):
        return table
    return table.assign(num_content_splits=table.groupby("sha256")["split"].transform("nunique"))


def _document_rules(checks: DocumentChecks, image_side_px: int) -> Sequence[Rule]:
    side = f"the autoencoder takes images of {image_side_px} px alone"
    return [
        table_rule(COLUMNS, "later rules read these columns", column_set=list(DOCUMENT_COLUMNS), exact_match=False),
        *_key_rules(),
        row_rule(VALUES, "a document without segments teaches nothing", column="num_segments", min_value=1),
        row_rule(VALUES, "less than bos, one token and eos teaches nothing", column="num_tokens", min_value=3),
        row_rule(
            VALUES,
            "longer than max_tokens: more likely a fault than a text",
            column="num_tokens",
            max_value=checks.max_tokens,
        ),
        row_rule(VALUES, side, column="width_px", min_value=image_side_px, max_value=image_side_px),
        row_rule(VALUES, side, column="height_px", min_value=image_side_px, max_value=image_side_px),
        row_rule(VALUES, "a picture of one colour alone is most often a failed download", column="std_pixel", min_value=0.5),
        row_rule(VALUES, "held-out documents must not be trained on", column="num_content_splits", max_value=1),
        table_rule(NOT_NULL, "rules above pass over what is null", column="num_segments"),
        table_rule(NOT_NULL, "rules above pass over what is null", column="num_tokens"),
        table_rule(NOT_NULL, "equal content in two splits is found by it", column="sha256"),
    ]


def _document_floors(split: str, checks: DocumentChecks) -> Sequence[Rule]:
    floor = f"too few images to train, or to measure, on the {split} split"
    return [
        *_row_floors(checks.min_documents, split),
        table_rule(SUM, floor, column="num_images", min_value=checks.min_images),
    ]


def _latent_rules(checks: LatentChecks, row_length: int) -> Sequence[Rule]:
    mean = checks.max_abs_mean
    return [
        table_rule(COLUMNS, "later rules read these columns", column_set=list(LATENT_COLUMNS), exact_match=False),
        *_key_rules(),
        table_rule(VALUES, "packing never parts a document", column="num_positions", min_value=2, max_value=row_length),
        table_rule(NOT_NULL, "the rule below passes over what is null", column="latent_finite"),
        row_rule(IN_SET, "one number that is not finite ruins every weight", column="latent_finite", value_set=[True]),
        row_rule(VALUES, "normalised latents have mean 0", column="latent_mean", min_value=-mean, max_value=mean),
        row_rule(VALUES, "normalised latents have deviation 1", column="latent_std_min", min_value=checks.min_std),
        row_rule(VALUES, "normalised latents have deviation 1", column="latent_std_max", max_value=checks.max_std),
    ]


def _packing_rules(split: str, checks: LatentChecks) -> Sequence[Rule]:
    min_rows = checks.min_rows if split == "train" else 1
    rules = [
        table_rule(ROWS, "the manifest has one entry a split", min_value=1, max_value=1),
        table_rule(VALUES, f"too few rows in the {split} split", column="num_rows", min_value=min_rows),
    ]
    if split == "train":
        # A few rows are not packed worse than many, but their last one is: held-out splits may be small.
        fill, share = checks.min_packing_fill, checks.max_quarantined_share
        rules += [
            table_rule(VALUES, "empty positions are computed for nothing", column="packing_fill", min_value=fill),
            table_rule(VALUES, "too many documents with images do not fit a row", column="share_set_aside", max_value=share),
        ]
    return rules


def _packing_table(manifest: Mapping[str, Any], split: str) -> pd.DataFrame:
    import pandas as pd

    num_documents = sum(manifest["num_documents"].values()) + manifest["num_set_aside"]
    row = {"key": split, "share_set_aside": manifest["num_set_aside"] / max(1, num_documents)}
    return pd.DataFrame([row | {name: manifest[name][split] for name in ("num_rows", "packing_fill")}])


def _key_rules() -> Sequence[Rule]:
    return [
        table_rule(NOT_NULL, "a document is named by its key", column="key"),
        table_rule(UNIQUE, "two documents of one name cannot be told apart", column="key"),
        table_rule(NOT_NULL, "every document belongs to a split", column="split"),
        table_rule(IN_SET, "no stage reads another split", column="split", value_set=list(SPLITS)),
    ]


def _row_floors(min_rows: int, split: str) -> Sequence[Rule]:
    return [table_rule(ROWS, f"too few documents in the {split} split", min_value=min_rows)]
