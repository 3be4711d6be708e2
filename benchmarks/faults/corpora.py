"""Targets of the faults: small corpora in users' formats, and encoded folders as the stages write them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.faults.counts import ROOT, environment
from components.data.documents import SPLITS, Document, ImageSegment, TextSegment, read_documents, write_documents
from components.data.ingest.corpora import Collected, collect
from core.files import write_json
from core.manifest import write_manifest
from core.png import encode_png
from pipelines.params import load
from pipelines.sections import Params

Members = Sequence[tuple[str, bytes]]

SMALL = (
    *("ingest.image_side_px=16", "ingest.vocab_size=300", "ingest.documents_per_file=16"),
    *("ingest.split_shares={validation: 0.2, test: 0.2}", "ingest.max_rejected_share=0.9"),
    *("validate.documents.min_documents=3", "validate.documents.min_images=3", "validate.documents.min_unique_share=0.5"),
    *("validate.latents.min_rows=1", "validate.latents.min_packing_fill=0", "validate.latents.max_quarantined_share=0.05"),
    *("encode.row_length=128", "encode.batch_size=8", "train.model.patch_side=2"),
)


class Read(NamedTuple):
    """documents: what came out. rejected: the lines of the quarantine file. collected: the counts."""

    documents: list[Document]
    rejected: list[dict[str, str]]
    collected: Collected

    def is_whole(self) -> bool:
        """candidates = documents + rejected + dropped, by what lies on disk."""
        counts = [corpus.report() for corpus in self.collected.corpora.values()]
        rows, dropped = (sum(entry[name] for entry in counts) for name in ("candidates", "duplicates_dropped"))
        return rows == len(self.documents) + len(self.rejected) + dropped


def picture(number: int, height: int = 24, width: int = 32) -> bytes:
    """A PNG of noise, its own for each number."""
    return encode_png(np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8))


def pairs(numbers: range) -> list[tuple[str, bytes]]:
    """Members of a WebDataset tar: NNNNNN.png and NNNNNN.txt."""
    return [member for n in numbers for member in ((f"{n:06d}.png", picture(n)), (f"{n:06d}.txt", caption(n).encode()))]


def caption(number: int) -> str:
    return f"picture number {number}"


def tar_bytes(members: Sequence[tuple[str | tarfile.TarInfo, bytes]]) -> bytes:
    """A tar of members, each a name or a header as it is to be written."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if member.isreg():
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def params_for(*corpora: dict[str, Any], overrides: Sequence[str] = ()) -> Params:
    """params.yaml with small sizes and these corpora; what they leave out is neutral."""
    neutral = {"name": "mine", "caption_first_share": 1.0}
    listed = json.dumps([neutral | corpus for corpus in corpora])
    return load(ROOT / "params.yaml", (*SMALL, *([f"ingest.corpora={listed}"] if corpora else []), *overrides))


def read_in(folder: Path, *corpora: dict[str, Any], overrides: Sequence[str] = (), num_decoders: int = 0) -> Read:
    """What ingest makes of corpora, in `folder`. num_decoders: 0 decodes here, for starting a process takes a second."""
    documents, quarantine = folder / "documents", folder / "quarantine.jsonl"
    with environment({"TRANSFUSION_NUM_DECODERS": str(num_decoders)}):
        collected = collect(params_for(*corpora, overrides=overrides).ingest, documents, quarantine)
    kept = [document for split in SPLITS for document in read_documents(documents, split)]
    return Read(kept, [json.loads(line) for line in quarantine.read_text().splitlines()], collected)


def write_documents_of(folder: Path, number: int, *, side_px: int = 16, per_file: int = 9) -> list[Document]:
    """Documents of a caption and an image, three quarters of them to train on, in parts under folder; no manifest."""
    made: list[Document] = []
    for split, share in (("train", number), ("validation", number // 4), ("test", number // 4)):
        documents = [
            Document(
                key=f"{split}-{n}",
                source="made",
                split=split,
                segments=(
                    TextSegment(f"{caption(n)} of {split}"),
                    ImageSegment(picture(n + 10_000 * len(split), side_px, side_px)),
                ),
            )
            for n in range(share)
        ]
        write_documents(folder, split, documents, per_file)
        made += documents
    return made


def write_inputs(work: Path, number: int, *, side_px: int = 16, per_file: int = 9, channels: tuple[int, ...] = (8, 8)) -> None:
    """data/documents, data/tokenizer, data/quarantine and artifacts/autoencoder in `work`, as their stages write them."""
    import torch

    from components.data.documents_table import document_row, write_table
    from components.data.quarantine import validation_facts, write_quarantine
    from core.tokenizer import train_tokenizer
    from model.latents.autoencoder import Autoencoder

    documents = write_documents_of(work / "data/documents", number, side_px=side_px, per_file=per_file)
    tokenizer = train_tokenizer((text for document in documents for text in document.texts), 300)
    tokenizer.save(work / "data/tokenizer")
    in_order = (document for split in SPLITS for document in read_documents(work / "data/documents", split))
    write_table(work / "data/documents", (document_row(document, tokenizer) for document in in_order))
    preparation = {"side_px": side_px, "background": "black", "animated": "first_frame"}
    write_manifest(work / "data/documents", kind="documents", preparation=preparation)
    quarantine = work / "data/quarantine/documents.jsonl"
    write_quarantine(quarantine, [])
    write_json(work / "reports/validate/documents.json", validation_facts("documents", quarantine, {}))
    torch.manual_seed(4)
    made = Autoencoder.create(
        block_channels=channels, layers_per_block=1, latent_channels=4, norm_groups=4, sample_side_px=side_px
    )
    # Latents of the scale that the gate wants, without training.
    pixels = torch.rand(64, 3, side_px, side_px) * 2 - 1
    with torch.inference_mode():
        mean = made.encode_moments(pixels).mean
    made.set_normalisation(mean.mean((0, 2, 3)), mean.std((0, 2, 3)))
    made.save_pretrained(work / "artifacts/autoencoder")
    write_manifest(work / "artifacts/autoencoder", kind="autoencoder")


def encode_here(work: Path, params: Params, target: Path, *, reverse: bool = False) -> None:
    """What the encode stage does with the inputs in the working directory, in this process."""
    from components.data.encode.assembly import assemble
    from components.data.encode.encoding import PartEncoder, plan
    from pipelines import encode

    sources, settings, assembly, _ = encode.inputs(params)
    encoder = PartEncoder(sources, settings)
    items = plan(sources, work)
    for item in reversed(items) if reverse else items:
        encoder(item)
    assemble(sources, settings, assembly, work, target)
