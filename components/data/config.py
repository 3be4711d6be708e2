"""What can be set about the corpora, their checks and their encoding, with units; params.yaml has all values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from components.data.content_config import DuplicatesConfig, ImagesConfig, TextConfig, require

CorpusFormat = Literal[
    "digit_scenes", "python_prose", "webdataset", "parquet", "coco", "obelics", "mmc4", "jsonl", "image_folder"
]
BUILT_IN = ("digit_scenes", "python_prose")
# The others may bring their images along, or name files that lie beside them.
WITH_IMAGES_FOLDER, MAYBE_WITH_IMAGES_FOLDER = ("coco", "mmc4"), ("coco", "mmc4", "obelics", "parquet", "jsonl")
# As a corpus's `images`: its images are left out on purpose.
NO_IMAGES = "none"


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """One corpus."""

    name: str
    """Short, unique; stands in every document's `source`."""
    format: CorpusFormat
    """How it is stored."""
    path: str
    """A file, folder, glob or brace pattern, local or by any fsspec URL (s3://...); "" for the two built-in demonstration
    corpora. A path that exists is taken as it stands, whatever characters are in it."""
    images: str
    """The folder of the files that coco, mmc4, obelics, parquet and jsonl name, local or by URL; "" for the others, and where
    names are looked up beside the parquet or jsonl file. "none" takes the text of these five formats alone."""
    captions: Literal["each", "one"]
    """Of several captions of one image, make a document of each, or of one that a hash of the key chooses."""
    caption_per_line: bool
    """Each line of a caption's text is a caption of its own."""
    caption_first_share: float
    """Share of image-caption pairs laid out caption first (the paper: 0.8)."""
    max_documents: int
    """The first so many of the corpus are taken; 0 takes all."""
    weight: float
    """Of the corpus in the training mixture, relative to the others."""

    def __post_init__(self) -> None:
        of = f"the {self.format} corpus {self.name!r}"
        require(self.format in BUILT_IN or bool(self.path), "path", self.path, f"must name the files of {of}")
        needs_images, may_have_images = self.format in WITH_IMAGES_FOLDER, self.format in MAYBE_WITH_IMAGES_FOLDER
        require(bool(self.images) or not needs_images, "images", self.images, f"must name the images folder of {of}")
        require(not self.images or may_have_images, "images", self.images, f'must be "" for {of}, which names no files')
        require(0 <= self.caption_first_share <= 1, "caption_first_share", self.caption_first_share, "must lie in 0..1")
        require(self.max_documents >= 0, "max_documents", self.max_documents, "must not be negative")
        require(self.weight > 0, "weight", self.weight, "must be positive; take a corpus that has none out of the list")


@dataclass(frozen=True, kw_only=True)
class SplitShares:
    """Share of documents (of scans, for the scenes) held out, by a hash of the key; the rest trains."""

    validation: float
    test: float

    def __post_init__(self) -> None:
        require(0 <= self.validation and 0 <= self.test, "validation", self.validation, "and test must not be negative")
        require(self.validation + self.test < 1, "test", self.test, "plus validation must stay below 1")


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """The demonstration's captioned scenes of real digits."""

    num_train: int
    num_validation: int
    num_test: int
    """Scenes made per split, each from that split's scans only."""
    num_kept_out_pairs: int
    """Digit-colour pairs that never occur in any scene of the training split."""

    def __post_init__(self) -> None:
        for name in ("num_train", "num_validation", "num_test"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(
            0 <= self.num_kept_out_pairs <= 20,
            "num_kept_out_pairs",
            self.num_kept_out_pairs,
            "must lie in 0..20 of the 60 pairs",
        )


@dataclass(frozen=True, kw_only=True)
class ProseConfig:
    """The demonstration's prose."""

    max_train_bytes: int
    """Text kept for training, in UTF-8 bytes (whole passages, chosen by a hash)."""
    max_held_out_bytes: int
    """The same for validation and for test, each."""
    passage_bytes: int
    """A document is cut at paragraph ends into passages of at most this size, symbols counting twice."""

    def __post_init__(self) -> None:
        for name in ("max_train_bytes", "max_held_out_bytes", "passage_bytes"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How the corpora become documents, and the tokenizer that is learnt from them."""

    seed: int
    """Of every draw of this stage."""
    image_side_px: int
    """Images are resized and centre-cropped to this square."""
    max_rejected_share: float
    """Above this share of rejected records of one corpus the stage fails."""
    documents_per_file: int
    """Documents of one Parquet file, and so of one shard later."""
    vocab_size: int
    """Of the byte-level BPE tokenizer, special tokens included."""
    split_shares: SplitShares
    scenes: ScenesConfig
    prose: ProseConfig
    images: ImagesConfig
    text: TextConfig
    duplicates: DuplicatesConfig
    corpora: tuple[CorpusConfig, ...]

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", self.seed, f"must lie in 0..{2**32 - 1}")
        require(self.image_side_px >= 8, "image_side_px", self.image_side_px, "must be at least 8")
        require(0 <= self.max_rejected_share <= 1, "max_rejected_share", self.max_rejected_share, "must lie in 0..1")
        require(self.documents_per_file >= 1, "documents_per_file", self.documents_per_file, "must be at least 1")
        require(self.vocab_size >= 261, "vocab_size", self.vocab_size, "must be at least 261 (256 bytes and 5 special tokens)")
        require(len(self.corpora) > 0, "corpora", self.corpora, "must list at least one corpus")
        names = [corpus.name for corpus in self.corpora]
        require(len(set(names)) == len(names), "corpora", names, "must have unique names")


@dataclass(frozen=True, kw_only=True)
class DocumentChecks:
    """Minimums and bounds over the documents' table."""

    min_documents: int
    min_images: int
    """Least per split (an empty corpus must fail). Without images there is no autoencoder, and so no later stage: corpora of
    text alone need one of pictures beside them."""
    max_tokens: int
    """Longest document with images, in tokens; longer ones are quarantined. A text without images is cut into rows and may be
    of any length."""
    min_unique_share: float
    """Share of documents with content of their own, 0..1; below it the gate warns."""
    max_quarantined_share: float
    """Above this share of bad documents the gate refuses."""

    def __post_init__(self) -> None:
        require(self.min_documents >= 1, "min_documents", self.min_documents, "must be at least 1")
        alone = "must be at least 1: the autoencoder is trained and measured on images; list a corpus that has some"
        require(self.min_images >= 1, "min_images", self.min_images, alone)
        require(0 <= self.min_unique_share <= 1, "min_unique_share", self.min_unique_share, "must lie in 0..1")
        require(0 <= self.max_quarantined_share <= 1, "max_quarantined_share", self.max_quarantined_share, "must lie in 0..1")


@dataclass(frozen=True, kw_only=True)
class LatentChecks:
    """Minimums and bounds over the table of encoded documents."""

    min_rows: int
    """Packed rows of the training split at least."""
    max_abs_mean: float
    min_std: float
    max_std: float
    """Of one image's normalised latents (all its numbers); single images stray, so wide."""
    max_abs_overall_mean: float
    min_overall_std: float
    max_overall_std: float
    """The same, averaged over all documents with images."""
    min_packing_fill: float
    """Share of row positions in use in the training split, 0..1."""
    max_quarantined_share: float
    """Above this share of bad documents, or of documents too long for a row, the gate refuses."""

    def __post_init__(self) -> None:
        require(self.min_rows >= 1, "min_rows", self.min_rows, "must be at least 1")
        require(0 <= self.min_std < self.max_std, "min_std", self.min_std, f"must lie below max_std {self.max_std}")
        require(
            0 <= self.min_overall_std < self.max_overall_std,
            "min_overall_std",
            self.min_overall_std,
            f"must lie below max_overall_std {self.max_overall_std}",
        )
        require(0 <= self.min_packing_fill <= 1, "min_packing_fill", self.min_packing_fill, "must lie in 0..1")
        require(0 <= self.max_quarantined_share <= 1, "max_quarantined_share", self.max_quarantined_share, "must lie in 0..1")


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    documents: DocumentChecks
    latents: LatentChecks


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """How documents become packed rows of token ids and latents."""

    batch_size: int
    """Images that a worker decodes and holds at a time; changes no byte."""
    row_length: int
    """Positions of one packed training row; also the longest document."""
    text_to_image_ratio: float
    """Positions of text for each of an image in the rows to train on (the paper: 1), met by leaving out or repeating documents
    of text alone; 0 takes every document as often as its source's weight says."""
    shard_mib: int
    """Parts are joined to shards of up to so many MiB."""
    flip: bool
    """Encode every training image mirrored too; wrong where images show text, digits or named sides."""
    crops: int
    """Parts of every training image encoded beside the whole, for training to choose from."""
    crop_share: float
    """Side of such a part, as a share of the image's."""

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "batch_size", self.batch_size, "must be at least 1")
        require(self.row_length >= 32, "row_length", self.row_length, "must be at least 32")
        require(self.text_to_image_ratio >= 0, "text_to_image_ratio", self.text_to_image_ratio, "must not be negative")
        require(self.shard_mib >= 1, "shard_mib", self.shard_mib, "must be at least 1")
        require(0 <= self.crops <= 64, "crops", self.crops, "must lie in 0..64")
        require(0 < self.crop_share <= 1, "crop_share", self.crop_share, "must lie above 0 and at most at 1")
