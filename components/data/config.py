"""What can be set about the corpora, their checks and their encoding, with units; params.yaml has all values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from components.bounds import NotNegative, Positive, Seed, Share, at_least, rule, within
from components.data.content_config import DuplicatesConfig, ImagesConfig, TextConfig, require

CorpusFormat = Literal[
    "digit_scenes", "python_prose", "webdataset", "parquet", "coco", "obelics", "mmc4", "jsonl", "image_folder"
]
BUILT_IN = ("digit_scenes", "python_prose")
# The others may bring their images along, or name files that lie beside them.
WITH_IMAGES_FOLDER, MAYBE_WITH_IMAGES_FOLDER = ("coco", "mmc4"), ("coco", "mmc4", "obelics", "parquet", "jsonl")
# As a corpus's `images`: its images are left out on purpose.
NO_IMAGES = "none"

Weight = Annotated[float, rule(lambda weight: weight > 0, "must be positive; take a corpus that has none out of the list")]
KeptOutPairs = Annotated[int, rule(lambda number: 0 <= number <= 20, "must lie in 0..20 of the 60 pairs")]
VocabularySize = Annotated[int, rule(lambda size: size >= 261, "must be at least 261 (256 bytes and 5 special tokens)")]
MinImages = Annotated[
    int,
    rule(
        lambda number: number >= 1,
        "must be at least 1: the autoencoder is trained and measured on images; list a corpus that has some",
    ),
]
CropShare = Annotated[float, rule(lambda share: 0 < share <= 1, "must lie above 0 and at most at 1")]


@dataclass(frozen=True, kw_only=True)
class CorpusDefaults:
    """What an entry of the corpora need not say: what it leaves out is taken from ingest.corpus_defaults."""

    images: str
    """The folder of the files that coco, mmc4, obelics, parquet and jsonl name, local or by URL; "" for the others, and where
    names are looked up beside the parquet or jsonl file. "none" takes the text of these five formats alone."""
    captions: Literal["each", "one"]
    """Of several captions of one image, make a document of each, or of one that a hash of the key chooses."""
    caption_per_line: bool
    """Each line of a caption's text is a caption of its own."""
    caption_first_share: Share
    """Share of image-caption pairs laid out caption first (the paper: 0.8)."""
    max_documents: NotNegative[int]
    """The first so many of the corpus are taken; 0 takes all."""
    weight: Weight
    """Of the corpus in the training mixture, relative to the others."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig(CorpusDefaults):
    """One corpus, what its entry leaves out filled in (pipelines/params.py)."""

    name: str
    """Short, unique; stands in every document's `source`."""
    format: CorpusFormat
    """How it is stored."""
    path: str
    """A file, folder, glob or brace pattern, local or by any fsspec URL (s3://...); "" for the two built-in demonstration
    corpora. A path that exists is taken as it stands, whatever characters are in it."""

    def __post_init__(self) -> None:
        of = f"the {self.format} corpus {self.name!r}"
        require(self.format in BUILT_IN or bool(self.path), "path", self.path, f"must name the files of {of}")
        needs_images, may_have_images = self.format in WITH_IMAGES_FOLDER, self.format in MAYBE_WITH_IMAGES_FOLDER
        require(bool(self.images) or not needs_images, "images", self.images, f"must name the images folder of {of}")
        require(not self.images or may_have_images, "images", self.images, f'must be "" for {of}, which names no files')


@dataclass(frozen=True, kw_only=True)
class SplitShares:
    """Share of documents (of scans, for the scenes) held out, by a hash of the key; the rest trains."""

    validation: NotNegative[float]
    test: NotNegative[float]

    def __post_init__(self) -> None:
        require(self.validation + self.test < 1, "test", self.test, "plus validation must stay below 1")


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """The demonstration's captioned scenes of real digits."""

    num_train: Positive[int]
    num_validation: Positive[int]
    num_test: Positive[int]
    """Scenes made per split, each from that split's scans only."""
    num_kept_out_pairs: KeptOutPairs
    """Digit-colour pairs that never occur in any scene of the training split."""


@dataclass(frozen=True, kw_only=True)
class ProseConfig:
    """The demonstration's prose."""

    max_train_bytes: Positive[int]
    """Text kept for training, in UTF-8 bytes (whole passages, chosen by a hash)."""
    max_held_out_bytes: Positive[int]
    """The same for validation and for test, each."""
    passage_bytes: Positive[int]
    """A document is cut at paragraph ends into passages of at most this size, symbols counting twice."""


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How the corpora become documents, and the tokenizer that is learnt from them."""

    seed: Seed
    """Of every draw of this stage."""
    image_side_px: Annotated[int, at_least(8)]
    """Images are resized and centre-cropped to this square."""
    max_rejected_share: Share
    """Above this share of rejected records of one corpus the stage fails."""
    documents_per_file: Positive[int]
    """Documents of one Parquet file, and so of one shard later."""
    tokenizer: str
    """A tokenizer.json to use instead of learning one, or a folder with one: a bundle's, or that of the model whose weights
    training is to begin with; "" learns one from the training split."""
    vocab_size: VocabularySize
    """Of the byte-level BPE tokenizer to learn, special tokens included."""
    split_shares: SplitShares
    scenes: ScenesConfig
    prose: ProseConfig
    images: ImagesConfig
    text: TextConfig
    duplicates: DuplicatesConfig
    corpus_defaults: CorpusDefaults
    corpora: tuple[CorpusConfig, ...]

    def __post_init__(self) -> None:
        require(len(self.corpora) > 0, "corpora", self.corpora, "must list at least one corpus")
        names = [corpus.name for corpus in self.corpora]
        require(len(set(names)) == len(names), "corpora", names, "must have unique names")


@dataclass(frozen=True, kw_only=True)
class DocumentChecks:
    """Minimums and bounds over the documents' table."""

    min_documents: Positive[int]
    min_images: MinImages
    """Least per split (an empty corpus must fail). Without images there is no autoencoder, and so no later stage: corpora of
    text alone need one of pictures beside them."""
    max_tokens: int
    """Longest document with images, in tokens; longer ones are quarantined. A text without images is cut into rows and may be
    of any length."""
    min_unique_share: Share
    """Share of documents with content of their own, 0..1; below it the gate warns."""
    max_quarantined_share: Share
    """Above this share of bad documents the gate refuses."""


@dataclass(frozen=True, kw_only=True)
class LatentChecks:
    """Minimums and bounds over the table of encoded documents."""

    min_rows: Positive[int]
    """Packed rows of the training split at least."""
    max_abs_mean: float
    min_std: float
    max_std: float
    """Of one image's normalised latents (all its numbers); single images stray, so wide."""
    max_abs_overall_mean: float
    min_overall_std: float
    max_overall_std: float
    """The same, averaged over all documents with images."""
    min_packing_fill: Share
    """Share of row positions in use in the training split, 0..1."""
    max_quarantined_share: Share
    """Above this share of bad documents, or of documents too long for a row, the gate refuses."""

    def __post_init__(self) -> None:
        require(0 <= self.min_std < self.max_std, "min_std", self.min_std, f"must lie below max_std {self.max_std}")
        require(
            0 <= self.min_overall_std < self.max_overall_std,
            "min_overall_std",
            self.min_overall_std,
            f"must lie below max_overall_std {self.max_overall_std}",
        )


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    documents: DocumentChecks
    latents: LatentChecks


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """How documents become packed rows of token ids and latents."""

    batch_size: Positive[int]
    """Images that a worker decodes and holds at a time; changes no byte."""
    row_length: Annotated[int, at_least(32)]
    """Positions of one packed training row; also the longest document."""
    text_to_image_ratio: NotNegative[float]
    """Positions of text for each of an image in the rows to train on (the paper: 1), met by leaving out or repeating documents
    of text alone; 0 takes every document as often as its source's weight says."""
    shard_mib: Positive[int]
    """Parts are joined to shards of up to so many MiB."""
    flip: bool
    """Encode every training image mirrored too; wrong where images show text, digits or named sides."""
    crops: Annotated[int, within(0, 64)]
    """Parts of every training image encoded beside the whole, for training to choose from."""
    crop_share: CropShare
    """Side of such a part, as a share of the image's."""
