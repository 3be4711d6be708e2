"""Which tables a gate looks at, of documents before they are encoded and of latents before training, and by which rules.

A column that is null (a picture's size where there is no picture) is not looked at by a rule on its values; not-null
rules stand apart, those about pictures over the documents with pictures alone. Great Expectations calls an empty table a
success, so every split has a minimum on its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.config import DocumentChecks, LatentChecks
from components.data.documents import SPLITS
from components.data.shards import open_shard, shard_paths
from components.data.validate import document_rules, latent_rules
from components.data.validate.expectations import validate_table
from components.data.validate.results import ValidationResult
from components.data.validate.rules import Check, Minimum

if TYPE_CHECKING:
    import pandas as pd


def validate_documents(
    table: pd.DataFrame, checks: DocumentChecks, *, image_side_px: int, docs: Path | None
) -> ValidationResult:
    """The result on the documents' table (components/data/documents_table.py)."""
    rows = Check(
        "documents", _with_content_splits(_with_uncut_tokens(table)), document_rules.rules_of_rows(checks, image_side_px)
    )
    minimums = [
        Minimum(f"documents-{split}", {"split": split}, document_rules.rules_of_split(split, checks)) for split in SPLITS
    ]
    pictures = Check("documents-with-pictures", _with_pictures(table), document_rules.rules_of_measures())
    return validate_table(rows, minimums, [pictures], max_quarantined_share=checks.max_quarantined_share, docs=docs)


def validate_latents(
    folder: Path, table: pd.DataFrame, manifest: Mapping[str, Any], checks: LatentChecks, *, autoencoder: str, docs: Path | None
) -> ValidationResult:
    """The result on the table of encoded documents, on the shards and on what the manifest says of the packed rows.

    folder: of the shards. autoencoder: content digest of the autoencoder that later stages decode with.
    """
    rows = Check(
        "latents", _with_expected_positions(table, manifest), latent_rules.rules_of_rows(checks, manifest["row_length"])
    )
    minimums = [Minimum(f"latents-{split}", {"split": split}, latent_rules.rules_of_split(split)) for split in SPLITS]
    finite = _with_pictures(table)
    finite = finite.loc[finite["latent_finite"].eq(True)] if "latent_finite" in finite else finite
    others = [
        # A corpus of text alone has no mean to speak of.
        *([Check("latents-with-pictures", finite, latent_rules.rules_of_scale(checks))] if len(finite) else []),
        Check("origin", _origin_table(manifest, autoencoder), latent_rules.rules_of_origin()),
        Check("shards", _shard_table(folder, manifest), latent_rules.rules_of_shards()),
        *(
            Check(f"packing-{split}", _packing_table(manifest, split), latent_rules.rules_of_packing(split, checks, manifest))
            for split in SPLITS
        ),
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
