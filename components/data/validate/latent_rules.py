"""What must hold of latents before training: every rule with its reason, its parameter and its commonest cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.data.config import LatentChecks
from components.data.validate.kinds import IN_SET, MEAN, NOT_NULL, PAIR, ROWS, VALUES, column_rule, key_rules, not_null
from components.data.validate.rules import Rule, row_rule, table_rule
from core.text import counted

LATENT_COLUMNS = (
    *("key", "document", "split", "num_tokens", "num_images", "num_positions"),
    *("latent_finite", "latent_mean", "latent_std_min", "latent_std_max"),
)
SECTION = "validate.latents"
AGAIN = "run encode again"


def rules_of_rows(checks: LatentChecks, row_length: int) -> Sequence[Rule]:
    """Over all encoded documents."""
    return [
        column_rule(LATENT_COLUMNS, "encode"),
        *key_rules("encode"),
        table_rule(VALUES, "packing never parts a document", column="num_positions", min_value=2, max_value=row_length).because(
            "", f"packing never parts a document; encode.row_length was changed since; {AGAIN}", max_value="encode.row_length"
        ),
        table_rule(
            PAIR,
            "latents of another shape: an image takes a position for each patch",
            column_A="num_positions",
            column_B="num_positions_expected",
        ).because("", f"latents of another shape than the manifest says: the folder holds files of two runs; {AGAIN}"),
        *not_null(
            ("num_positions", "num_tokens", "num_images", "latent_finite"), "other rules pass over what is null", "encode"
        ),
        *_of_each_image(checks),
    ]


def rules_of_split(split: str) -> Sequence[Rule]:
    """Over what is left of a split."""
    return [
        table_rule(ROWS, f"too few documents in the {split} split", min_value=1).because(
            f"the number of encoded documents in the {split} split",
            f"the gate of documents or this one set all of them aside; see data/quarantine and {SECTION}",
        )
    ]


def rules_of_scale(checks: LatentChecks) -> Sequence[Rule]:
    """Over the documents with images: single ones may stray, all of them together may not."""
    mean, reason = checks.max_abs_overall_mean, "latents of another scale than training's noise is made for"
    cause = (
        f"{reason}: an autoencoder that was trained too briefly, or a given one whose config names another scaling; raise"
        " autoencoder.max_steps and look at reports/autoencoder/reconstructions.png"
    )
    return [
        *not_null(("latent_mean", "latent_std_min", "latent_std_max"), "an image's latents were not measured", "encode"),
        table_rule(MEAN, reason, column="latent_mean", min_value=-mean, max_value=mean).because(
            "the mean of all latents", cause, **_both(f"{SECTION}.max_abs_overall_mean", f"{SECTION}.max_abs_overall_mean")
        ),
        table_rule(
            MEAN, reason, column="latent_std_max", min_value=checks.min_overall_std, max_value=checks.max_overall_std
        ).because("the deviation of latents", cause, **_both(f"{SECTION}.min_overall_std", f"{SECTION}.max_overall_std")),
    ]


def rules_of_origin() -> Sequence[Rule]:
    """Over the autoencoder's digests."""
    reason = "pictures are decoded by another autoencoder than made the latents"
    return [table_rule(PAIR, reason, column_A="made_by", column_B="decoded_by").because("", f"{reason}; {AGAIN}")]


def rules_of_shards() -> Sequence[Rule]:
    """Over the shards."""
    shape = "latents of another shape than the manifest says"
    return [
        table_rule(ROWS, "latents without a shard are no latents", min_value=1).because("the number of shards", AGAIN),
        table_rule(PAIR, shape, column_A="shape", column_B="shape_expected").because("", f"{shape}; {AGAIN}"),
        table_rule(NOT_NULL, "the rule above passes over what is null", column="shape").because("", AGAIN),
    ]


def rules_of_packing(split: str, checks: LatentChecks, manifest: Mapping[str, Any]) -> Sequence[Rule]:
    """Over what the manifest says of a split's rows."""
    num_documents, length = manifest["num_documents"][split], manifest["row_length"]
    of_train = split == "train"
    more = "add documents, or lower encode.row_length" if of_train else f"raise ingest.split_shares.{split}"
    few = f"{counted(num_documents, 'document fills', 'documents fill')} no more rows of {length}; {more}"
    entry = table_rule(ROWS, "the manifest has one entry a split", min_value=1, max_value=1)
    rows = table_rule(
        VALUES, f"too few rows in the {split} split", column="num_rows", min_value=checks.min_rows if of_train else 1
    )
    named = {"min_value": f"{SECTION}.min_rows"} if of_train else {}
    rules = [
        entry.because(f"the number of entries of the {split} split", AGAIN),
        rows.because(f"the number of rows of the {split} split", few, **named),
    ]
    # A few rows are not packed worse than many, but their last one is: held-out splits may be small.
    return [*rules, *_of_use(checks, manifest)] if of_train else rules


def _of_use(checks: LatentChecks, manifest: Mapping[str, Any]) -> Sequence[Rule]:
    num_rows, num_documents, length = (manifest[name] for name in ("num_rows", "num_documents", "row_length"))
    rows, documents = num_rows["train"], num_documents["train"]
    # Less than one row's positions in all: what is empty is the end of the last row, and longer rows would make it worse.
    if (1 - manifest["packing_fill"]["train"]) * rows < 1:
        fill = f"the last of {counted(rows, 'row')} of {length} is not full; add documents, or lower encode.row_length"
    else:
        fill = f"rows of {length} hold {documents / max(1, rows):.1f} documents; raise encode.row_length"
    aside, share = manifest["num_set_aside"], checks.max_quarantined_share
    return [
        table_rule(
            VALUES, "empty positions are computed for nothing", column="packing_fill", min_value=checks.min_packing_fill
        ).because("the packing fill", fill, min_value=f"{SECTION}.min_packing_fill"),
        table_rule(
            VALUES, "too many documents with images do not fit a row", column="share_set_aside", max_value=share
        ).because(
            "the share of documents left out of the rows",
            f"{counted(aside, 'document with images is', 'documents with images are')} longer than a row of {length}; raise "
            "encode.row_length",
            max_value=f"{SECTION}.max_quarantined_share",
        ),
    ]


def _of_each_image(checks: LatentChecks) -> Sequence[Rule]:
    mean = checks.max_abs_mean
    broken = "the autoencoder's numbers ran away; lower autoencoder.learning_rate, or look at the picture"
    strays = (
        "pictures unlike those that the autoencoder has learnt (blank, drawn, of another kind), or one that learnt too little"
    )
    cause = f"{strays}; look at them, raise autoencoder.max_steps, or widen the bound"
    return [
        row_rule(IN_SET, "one number that is not finite ruins every weight", column="latent_finite", value_set=[True]).because(
            "", broken
        ),
        row_rule(VALUES, "normalised latents have mean 0", column="latent_mean", min_value=-mean, max_value=mean).because(
            "", cause, **_both(f"{SECTION}.max_abs_mean", f"{SECTION}.max_abs_mean")
        ),
        row_rule(VALUES, "normalised latents have deviation 1", column="latent_std_min", min_value=checks.min_std).because(
            "", cause, min_value=f"{SECTION}.min_std"
        ),
        row_rule(VALUES, "normalised latents have deviation 1", column="latent_std_max", max_value=checks.max_std).because(
            "", cause, max_value=f"{SECTION}.max_std"
        ),
    ]


def _both(least: str, most: str) -> dict[str, str]:
    return {"min_value": least, "max_value": most}
