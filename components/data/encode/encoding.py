"""Documents encoded by any number of workers, in any number of attempts: part by part, each kept when it is done.

A finished part is a shard with a note beside it, in a folder outside DVC's outs, named by the digest of everything the
result depends on; the next attempt checks the note's sha256 and does only what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from components.data.documents import SPLITS, document_names, document_parts, read_part
from components.data.encode.latents import EncodeSettings, encode_part
from components.data.encode.variants import WHOLE
from components.data.shards import FORMAT_VERSION, shard_path, write_shard
from components.runtime.actors import ItemEndsProcesses, map_over_actors
from components.runtime.cluster import device, start_ray
from components.runtime.code_digest import code_digest
from components.runtime.devices import num_map_actors
from components.runtime.progress import Progress
from components.runtime.tries import MAX_TRIES
from core import files
from core.errors import BadInput, WorkersFailed
from core.manifest import MANIFEST
from core.text import counted, plural
from core.tokenizer import load_tokenizer
from model.latents.autoencoder import Autoencoder

# What decides a shard's bytes.
CODE = "components.data.encode.latents"


class Sources(NamedTuple):
    """Folders of documents, tokenizer and autoencoder."""

    documents: Path
    tokenizer: Path
    autoencoder: Path
    quarantine: frozenset[str]
    """Names of documents that their gate quarantined."""


class PartEncoder:
    """One worker: an autoencoder and a tokenizer, and part after part."""

    def __init__(self, sources: Sources, settings: EncodeSettings) -> None:
        import torch

        # One thread, and no kernels chosen by timing: bytes must not depend on how many workers share the machine.
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        self.quarantined, self.settings, self.device = sources.quarantine, settings, device()
        # A GPU waits for pictures that one core decodes; on a CPU the other cores have their own workers.
        self.decoders = min(16, os.cpu_count() or 1) if self.device.type == "cuda" else 1
        self.tokenizer = load_tokenizer(sources.tokenizer)
        self.autoencoder = Autoencoder.from_pretrained(sources.autoencoder).to(self.device)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Encode {"part": path, "split": its split} into {"shard": path}, then write the note that says it is finished."""
        documents, shard = read_part(Path(item["part"])), Path(item["shard"])
        # What is measured is measured as it is.
        settings = self.settings if item["split"] == "train" else self.settings._replace(views=WHOLE)
        encoded = encode_part(
            documents,
            self.tokenizer,
            self.autoencoder,
            settings,
            device=self.device,
            quarantined=self.quarantined,
            decoders=self.decoders,
        )
        write_shard(shard, encoded.shard)
        note = {"sha256": files.sha256(shard), "rows": encoded.rows, "set_aside": encoded.set_aside}
        files.write_json(shard.with_suffix(".json"), note)
        return {"num_documents": len(encoded.rows), "num_images": len(encoded.shard.image_at)}


def work_digest(sources: Sources, settings: EncodeSettings) -> str:
    """A name for this work: equal where the inputs, the settings and the code that encodes are equal.

    The batch size changes no byte, so that a run that was out of memory goes on with a smaller one.
    """
    manifests = (sources.documents, sources.tokenizer, sources.autoencoder)
    facts = {
        "inputs": [files.sha256(folder / MANIFEST) for folder in manifests],
        "quarantine": sorted(sources.quarantine),
        "settings": settings._replace(batch_size=0)._asdict() | {"views": settings.views._asdict()},
        "format": FORMAT_VERSION,
        "code": code_digest(CODE),
        "torch": version("torch"),
    }
    return files.digest(facts)[:16]


def plan(sources: Sources, work: Path) -> list[dict[str, Any]]:
    """One item for PartEncoder a part of documents; its shard has the part's number."""
    return [
        {"split": split, "part": str(part.absolute()), "shard": str(shard_path(work.absolute(), split, number))}
        for split in SPLITS
        for number, part in enumerate(document_parts(sources.documents, split))
    ]


def unfinished(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items whose shard is not there with the bytes that its note vouches for."""
    return [item for item in items if not _is_finished(Path(item["shard"]))]


def encode_parts(sources: Sources, settings: EncodeSettings, work: Path) -> None:
    """Make every shard that `work` lacks, by Ray actors, and say how far they are.

    WorkersFailed where a part ends one worker after another; what is finished stays.
    """
    items = plan(sources, work)
    if not items:
        raise BadInput(f"{sources.documents} holds no documents; run `dvc repro ingest`")
    todo = unfinished(items)
    num_there = len(items) - len(todo)
    there = f"{num_there} of {counted(len(items), 'part')} {plural(num_there, 'is', 'are')} there already"
    print(f"encode: {there}, {len(todo)} to do", flush=True)
    if not todo:
        return
    # Workers may start in another folder.
    documents, tokenizer, autoencoder = (folder.absolute() for folder in sources[:3])
    absolute = Sources(documents, tokenizer, autoencoder, sources.quarantine)
    with start_ray(), Progress("encode", unit="documents") as progress:
        arguments = {"sources": absolute, "settings": settings}
        results = map_over_actors(todo, PartEncoder, arguments, num_map_actors(), tries=work / "tries")
        num_documents = num_images = 0
        try:
            for done, result in enumerate(results, start=1):
                num_documents += result["num_documents"]
                num_images += result["num_images"]
                share = done / len(todo)
                progress.at(num_documents, share=lambda share=share: share, note=counted(num_images, "image"))
        except ItemEndsProcesses as error:
            raise WorkersFailed(_deadly(Path(error.item["part"]))) from None


def _deadly(part: Path) -> str:
    """The sentence about a part that ended one worker after another."""
    names = document_names(part)
    which = f"its {len(names)} documents, {names[0]} to {names[-1]}" if len(names) > 1 else f"its document {names[0]}"
    return (
        f"{part} ended the worker that encoded it {MAX_TRIES} times (a crash, or more memory than there is): {which}; free "
        "memory, lower encode.batch_size, or run fewer workers (TRANSFUSION_NUM_ACTORS); where it ends them still, take the "
        "document at fault out of its corpus; the finished parts are kept, run again to go on"
    )


def _is_finished(shard: Path) -> bool:
    note = shard.with_suffix(".json")
    try:
        return note.is_file() and shard.is_file() and files.read_fields(note, "sha256")["sha256"] == files.sha256(shard)
    except BadInput:  # half a note; both are made again
        return False
