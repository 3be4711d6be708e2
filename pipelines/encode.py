"""Encode documents into token ids and latents, in packed, indexed shards.

data/documents, data/quarantine/documents.jsonl, data/tokenizer, artifacts/autoencoder
-> data/latents, reports/encode/latents.json
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from components.data.encode.assembly import Assembly, assemble
from components.data.encode.encoding import Sources, encode_parts, work_digest
from components.data.encode.latents import EncodeSettings
from components.data.encode.variants import Views
from components.data.quarantine import read_keys
from core.files import write_json
from core.text import counted
from pipelines import paths, stage
from pipelines.ancestry import given, preparation_of
from pipelines.sections import Params
from pipelines.unfinished import forget


class Inputs(NamedTuple):
    """work: where unfinished work of these sources and settings is kept."""

    sources: Sources
    settings: EncodeSettings
    assembly: Assembly
    work: Path


def inputs(params: Params) -> Inputs:
    """What is encoded, and how; BadInput unless all of it belongs together and has the bytes it was written with."""
    quarantine = read_keys(paths.QUARANTINE / "documents.jsonl")
    manifests, ancestors = given("tokenizer", "documents", "documents verdict", "autoencoder")
    documents = manifests["documents"]
    sources = Sources(paths.DOCUMENTS, paths.TOKENIZER, paths.AUTOENCODER, quarantine)
    config = params.encode
    settings = EncodeSettings(
        batch_size=config.batch_size,
        row_length=config.row_length,
        patch_side=params.train.model.patch_side,
        image_side_px=preparation_of("documents", manifests).side_px,
        views=Views(config.flip, config.crops, config.crop_share),
    )
    weights, shard_bytes = documents.get("weights", {}), config.shard_mib * 2**20
    assembly = Assembly(weights, config.text_to_image_ratio, shard_bytes, ancestors)
    return Inputs(sources, settings, assembly, paths.WORK / "encode" / work_digest(sources, settings))


def main(params: Params) -> None:
    """Make the missing shards, pack, publish, report."""
    sources, settings, assembly, work = inputs(params)
    encode_parts(sources, settings, work)
    report = assemble(sources, settings, assembly, work, paths.LATENTS)
    write_json(paths.REPORTS / "encode" / "latents.json", report)
    forget(work)
    for split, num_rows in report["num_rows"].items():
        num_documents, fill = report["num_documents"][split], report["packing_fill"][split]
        print(f"encode: {split}: {counted(num_documents, 'document')} in {counted(num_rows, 'row')}, {fill:.1%} full")


if __name__ == "__main__":
    stage.run("encode", __doc__, main)
