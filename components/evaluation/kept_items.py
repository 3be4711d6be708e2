"""What an evaluation's figures were measured on, kept as a folder: items, and what two evaluations must share to be compared.

The folder goes with a registered version, so that another model is compared with it pair by pair when the evaluation itself is
long gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.evaluation.intervals import Items, items_file, items_from
from components.runtime.ancestors import ANCESTORS, content_digest
from components.runtime.tracking import flatten
from core.errors import BadInput
from core.files import write_bytes
from core.manifest import read_manifest, write_manifest

if TYPE_CHECKING:
    from components.evaluation.config import EvaluateConfig
    from components.evaluation.held_out import HeldOut
    from model.transfusion import Transfusion

KIND = "evaluation items"
ITEMS = "items.parquet"
# How a model is asked is a part of it: its bundle carries the guidance and the steps that it was measured with.
OF_THE_MODEL = ("guidance_scale", "num_solver_steps", "batch_size")


class KeptItems(NamedTuple):
    """What `keep_items` wrote."""

    items: Mapping[str, Items]
    """Of each figure that was measured item by item."""
    held_out: str
    """Digest of the held-out documents."""
    settings: Mapping[str, Any]
    """What decides which items there are and how each is judged, keys joined by dots."""
    latents: Mapping[str, Any]
    """The diffusion process, and the digest of the autoencoder."""


def measured_on(held_out: HeldOut, model: Transfusion, config: EvaluateConfig) -> dict[str, Any]:
    """What `keep_items` notes of an evaluation."""
    settings = {name: value for name, value in asdict(config).items() if name not in OF_THE_MODEL}
    process = model.config.process._asdict()
    return {"held_out": digest_of(held_out), "settings": flatten(settings), "process": process}


def digest_of(held_out: HeldOut) -> str:
    """Hex sha256 of names, texts, captions and pictures, whatever the training documents, autoencoder and tokenizer are."""
    found = hashlib.sha256()
    for document in held_out.texts:
        _add(found, document.text.encode())
    for image in held_out.images:
        for part in (image.name.encode(), (image.caption or "").encode(), *image.pictures):
            _add(found, part)
    return found.hexdigest()


def keep_items(folder: Path, items: Mapping[str, Items], facts: Mapping[str, Any], evaluation: Mapping[str, Any]) -> None:
    """Write the items and a manifest that vouches for them. facts: of `measured_on`. evaluation: its manifest."""
    write_bytes(folder / ITEMS, items_file(dict(items)))
    ancestors = evaluation[ANCESTORS] | {evaluation["kind"]: content_digest(evaluation)}
    write_manifest(folder, kind=KIND, names=[ITEMS], ancestors=ancestors, **facts)


def check_items(folder: Path, evaluation: Mapping[str, Any]) -> None:
    """BadInput unless the folder is what was kept of the evaluation of this manifest."""
    manifest = read_manifest(folder, kind=KIND)
    if manifest.get(ANCESTORS, {}).get(evaluation["kind"]) != content_digest(evaluation):
        raise BadInput(f"{folder} holds the items of another evaluation; run evaluate again, or `dvc repro`")


def read_items(folder: Path, *, remedy: str = "") -> KeptItems:
    """What `keep_items` wrote. BadInput where its bytes are not those any more. remedy: what the message tells to do."""
    manifest = read_manifest(folder, kind=KIND, remedy=remedy)
    try:
        latents = {"autoencoder": manifest[ANCESTORS].get("autoencoder", ""), **manifest["process"]}
        return KeptItems(items_from((folder / ITEMS).read_bytes()), manifest["held_out"], manifest["settings"], latents)
    except (KeyError, TypeError, AttributeError):
        raise BadInput(f"{folder} does not say what its items were measured on; {remedy or 'run evaluate again'}") from None


def _add(found: Any, part: bytes) -> None:
    # Its length first, so that no two lists of parts read alike.
    found.update(len(part).to_bytes(8, "little") + part)
