"""What must hold of documents before they are encoded: every rule with its reason, its parameter and its commonest cause."""

from __future__ import annotations

from collections.abc import Sequence

from components.data.config import DocumentChecks
from components.data.validate.kinds import ROWS, SUM, UNIQUE_SHARE, VALUES, column_rule, key_rules, not_null
from components.data.validate.rules import Rule, row_rule, table_rule, warning_rule

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
SECTION = "validate.documents"


def rules_of_rows(checks: DocumentChecks, image_side_px: int) -> Sequence[Rule]:
    """Over all documents."""
    return [
        column_rule(DOCUMENT_COLUMNS, "ingest"),
        *key_rules("ingest"),
        *_of_length(checks),
        *_of_pictures(image_side_px),
        row_rule(VALUES, "held-out documents must not be trained on", column="num_content_splits", max_value=1).because(
            "", "the same text and pictures stand in several splits; ingest.duplicates.exact: drop keeps the first of them"
        ),
        *not_null(("num_segments", "num_tokens", "num_images"), "other rules pass over what is null", "ingest"),
        *not_null(("source",), "a document whose origin nobody knows can be neither weighted nor taken out", "ingest"),
        *not_null(("sha256",), "equal content in two splits is found by it", "ingest"),
        warning_rule(
            UNIQUE_SHARE, "documents that come again are learnt by heart", column="sha256", min_value=checks.min_unique_share
        ).because(
            "the share of documents with content of their own",
            "documents that come again are learnt by heart; ingest.duplicates.exact: drop keeps one of each",
            min_value=f"{SECTION}.min_unique_share",
        ),
    ]


def rules_of_split(split: str, checks: DocumentChecks) -> Sequence[Rule]:
    """Over what is left of a split."""
    more = "add documents" if split == "train" else f"add documents or raise ingest.split_shares.{split}"
    return [
        table_rule(ROWS, f"too few documents in the {split} split", min_value=checks.min_documents).because(
            f"the number of documents in the {split} split",
            f"the corpora are small; {more}, or lower the bound",
            min_value=f"{SECTION}.min_documents",
        ),
        table_rule(SUM, f"too few images in the {split} split", column="num_images", min_value=checks.min_images).because(
            f"the number of images in the {split} split",
            "the autoencoder is trained and measured on them; add a corpus with images to ingest.corpora, or, where there are"
            f" some, {more}, or lower the bound",
            min_value=f"{SECTION}.min_images",
        ),
    ]


def rules_of_measures() -> Sequence[Rule]:
    """Over the documents with pictures."""
    return not_null(("width_px", "height_px", "std_pixel"), "a picture was not measured", "ingest")


def _of_length(checks: DocumentChecks) -> Sequence[Rule]:
    empty = "records without text; take them out of the corpus"
    return [
        row_rule(VALUES, "a document without segments teaches nothing", column="num_segments", min_value=1).because("", empty),
        row_rule(VALUES, "less than bos, one token and eos teaches nothing", column="num_tokens", min_value=3).because(
            "", empty
        ),
        row_rule(
            VALUES,
            "a document with images cannot be cut, and this one is longer than max_tokens",
            column="num_uncut_tokens",
            max_value=checks.max_tokens,
        ).because(
            "",
            f"long captions or pages; raise {SECTION}.max_tokens and encode.row_length, or lower ingest.text.max_caption_bytes",
            max_value=f"{SECTION}.max_tokens",
        ),
    ]


def _of_pictures(image_side_px: int) -> Sequence[Rule]:
    side = f"the autoencoder takes images of {image_side_px} px alone"
    again = "ingest.image_side_px was changed since; run ingest again"
    sides = [
        row_rule(VALUES, side, column=column, min_value=image_side_px, max_value=image_side_px).because("", again)
        for column in ("width_px", "height_px")
    ]
    blank = row_rule(VALUES, "a picture of one colour alone is most often a failed download", column="std_pixel", min_value=0.5)
    return [*sides, blank.because("", f"blank pictures; take them out, or raise {SECTION}.max_quarantined_share")]
