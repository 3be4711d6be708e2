"""What must hold of documents before they are encoded, and of latents before training: every rule with its reason.

A column that is null (a picture's size where there is no picture) is not looked at by a rule on its values; not-null
rules stand apart, those about pictures over the documents with pictures alone. Great Expectations calls an empty table a
success, so every split has a minimum on its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.config import DocumentChecks, LatentChecks
from components.data.documents import SPLITS
from components.data.shards import open_shard, shard_paths
from components.data.validate.expectations import Check, Minimum, Rule, row_rule, table_rule, validate_table, warning_rule
from components.data.validate.results import ValidationResult

if TYPE_CHECKING:
    import pandas as pd

VALUES, NOT_NULL, UNIQUE = (
    "ExpectColumnValuesToBeBetween",
    "ExpectColumnValuesToNotBeNull",
    "ExpectColumnValuesToBeUnique",
)
IN_SET, SUM, ROWS = "ExpectColumnValuesToBeInSet", "ExpectColumnSumToBeBetween", "ExpectTableRowCountToBeBetween"
COLUMNS, MEAN, PAIR = "ExpectTableColumnsToMatchSet", "ExpectColumnMeanToBeBetween", "ExpectColumnPairValuesToBeEqual"
UNIQUE_SHARE = "ExpectColumnProportionOfUniqueValuesToBeBetween"

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


def validate_documents(
    table: pd.DataFrame, checks: DocumentChecks, *, image_side_px: int, docs: Path | None
) -> ValidationResult:
    """The result on the documents' table (components/data/documents_table.py)."""
    rows = Check("documents", _with_content_splits(_with_uncut_tokens(table)), _document_rules(checks, image_side_px))
    minimums = [Minimum(f"documents-{split}", {"split": split}, _document_minimums(split, checks)) for split in SPLITS]
    measured = ("width_px", "height_px", "std_pixel")
    pictures = Check("documents-with-pictures", _with_pictures(table), _not_null(measured, "a picture was not measured"))
    return validate_table(rows, minimums, [pictures], max_quarantined_share=checks.max_quarantined_share, docs=docs)


def validate_latents(
    folder: Path, table: pd.DataFrame, manifest: Mapping[str, Any], checks: LatentChecks, *, autoencoder: str, docs: Path | None
) -> ValidationResult:
    """The result on the table of encoded documents, on the shards and on what the manifest says of the packed rows.

    folder: of the shards. autoencoder: content digest of the autoencoder that later stages decode with.
    """
    rows = Check("latents", _with_expected_positions(table, manifest), _latent_rules(checks, manifest["row_length"]))
    minimums = [Minimum(f"latents-{split}", {"split": split}, _num_documents(1, split)) for split in SPLITS]
    finite = _with_pictures(table)
    finite = finite.loc[finite["latent_finite"].eq(True)] if "latent_finite" in finite else finite
    others = [
        # A corpus of text alone has no mean to speak of.
        *([Check("latents-with-pictures", finite, _scale_rules(checks))] if len(finite) else []),
        Check("origin", _origin_table(manifest, autoencoder), _origin_rules()),
        Check("shards", _shard_table(folder, manifest), _shard_rules()),
        *(Check(f"packing-{split}", _packing_table(manifest, split), _packing_rules(split, checks)) for split in SPLITS),
    ]
    return validate_table(rows, minimums, others, max_quarantined_share=checks.max_quarantined_share, docs=docs)


def _with_pictures(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[table["num_images"] > 0] if "num_images" in table else table.iloc[:0]


def _with_uncut_tokens(table: pd.DataFrame) -> pd.DataFrame:
    """The table with num_uncut_tokens: null for a text without images, which is cut into rows and may be of any length."""
    if not {"num_tokens", "num_images"} <= set(table.columns):
        return table
    return table.assign(num_uncut_tokens=table["num_tokens"].where(table["num_images"] > 0))


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
            "a document with images cannot be cut, and this one is longer than max_tokens",
            column="num_uncut_tokens",
            max_value=checks.max_tokens,
        ),
        row_rule(VALUES, side, column="width_px", min_value=image_side_px, max_value=image_side_px),
        row_rule(VALUES, side, column="height_px", min_value=image_side_px, max_value=image_side_px),
        row_rule(VALUES, "a picture of one colour alone is most often a failed download", column="std_pixel", min_value=0.5),
        row_rule(VALUES, "held-out documents must not be trained on", column="num_content_splits", max_value=1),
        *_not_null(("num_segments", "num_tokens", "num_images"), "other rules pass over what is null"),
        *_not_null(("source",), "a document whose origin nobody knows can be neither weighted nor taken out"),
        *_not_null(("sha256",), "equal content in two splits is found by it"),
        warning_rule(
            UNIQUE_SHARE,
            "documents that come again are learnt by heart",
            column="sha256",
            min_value=checks.min_unique_share,
        ),
    ]


def _document_minimums(split: str, checks: DocumentChecks) -> Sequence[Rule]:
    minimum = (
        f"too few images in the {split} split: the autoencoder is trained and measured on them; add a corpus with images to"
        " ingest.corpora, or, where there are some, lower validate.documents.min_images or raise ingest.split_shares"
    )
    return [
        *_num_documents(checks.min_documents, split),
        table_rule(SUM, minimum, column="num_images", min_value=checks.min_images),
    ]


def _latent_rules(checks: LatentChecks, row_length: int) -> Sequence[Rule]:
    mean = checks.max_abs_mean
    return [
        table_rule(COLUMNS, "later rules read these columns", column_set=list(LATENT_COLUMNS), exact_match=False),
        *_key_rules(),
        table_rule(VALUES, "packing never parts a document", column="num_positions", min_value=2, max_value=row_length),
        table_rule(
            PAIR,
            "latents of another shape: an image takes a position for each patch",
            column_A="num_positions",
            column_B="num_positions_expected",
        ),
        *_not_null(("num_positions", "num_tokens", "num_images", "latent_finite"), "other rules pass over what is null"),
        row_rule(IN_SET, "one number that is not finite ruins every weight", column="latent_finite", value_set=[True]),
        row_rule(VALUES, "normalised latents have mean 0", column="latent_mean", min_value=-mean, max_value=mean),
        row_rule(VALUES, "normalised latents have deviation 1", column="latent_std_min", min_value=checks.min_std),
        row_rule(VALUES, "normalised latents have deviation 1", column="latent_std_max", max_value=checks.max_std),
    ]


def _scale_rules(checks: LatentChecks) -> Sequence[Rule]:
    """Over the documents with images: single ones may stray, all of them together may not."""
    mean, reason = checks.max_abs_overall_mean, "latents of another scale than training's noise is made for"
    return [
        *_not_null(("latent_mean", "latent_std_min", "latent_std_max"), "an image's latents were not measured"),
        table_rule(MEAN, reason, column="latent_mean", min_value=-mean, max_value=mean),
        table_rule(MEAN, reason, column="latent_std_max", min_value=checks.min_overall_std, max_value=checks.max_overall_std),
    ]


def _origin_rules() -> Sequence[Rule]:
    reason = "pictures are decoded by another autoencoder than made the latents"
    return [table_rule(PAIR, reason, column_A="made_by", column_B="decoded_by")]


def _shard_rules() -> Sequence[Rule]:
    return [
        table_rule(ROWS, "latents without a shard are no latents", min_value=1),
        table_rule(PAIR, "latents of another shape than the manifest says", column_A="shape", column_B="shape_expected"),
        table_rule(NOT_NULL, "the rule above passes over what is null", column="shape"),
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


def _with_expected_positions(table: pd.DataFrame, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """The table with num_positions_expected: tokens, and patches of the manifest's shape for each image."""
    if not {"num_tokens", "num_images"} <= set(table.columns):
        return table
    _, height, width = manifest["latent_shape"]
    patches_per_image = height * width // manifest["patch_side"] ** 2
    return table.assign(num_positions_expected=table["num_tokens"] + table["num_images"] * patches_per_image)


def _origin_table(manifest: Mapping[str, Any], autoencoder: str) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([{"key": "autoencoder", "made_by": manifest["ancestors"]["autoencoder"], "decoded_by": autoencoder}])


def _shard_table(folder: Path, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """One row a shard; shapes as text, e.g. "8 x 4 x 4"."""
    import pandas as pd

    expected = " x ".join(map(str, manifest["latent_shape"]))
    rows = [
        {
            "key": str(path.relative_to(folder)),
            "shape": " x ".join(map(str, open_shard(path).latents.shape[1:])),
            "shape_expected": expected,
        }
        for split in SPLITS
        for path in shard_paths(folder, split)
    ]
    return pd.DataFrame(rows, columns=["key", "shape", "shape_expected"])


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


def _not_null(columns: Sequence[str], reason: str) -> list[Rule]:
    return [table_rule(NOT_NULL, reason, column=column) for column in columns]


def _num_documents(min_rows: int, split: str) -> Sequence[Rule]:
    return [table_rule(ROWS, f"too few documents in the {split} split", min_value=min_rows)]
