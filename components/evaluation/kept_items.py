"""What two evaluations are compared by, kept as a folder: items, pictures, and what the figures were measured on.

The folder goes with a registered version, so that another model is compared with it pair by pair when the evaluation itself is
long gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.evaluation.intervals import Items, items_file, items_from
from components.evaluation.kept_pictures import KeptPicture, pictures_file, pictures_from
from components.runtime.ancestors import ANCESTORS, content_digest
from components.runtime.tracking import flatten
from core.errors import BadInput
from core.files import digest, write_bytes
from core.manifest import read_manifest, write_manifest

if TYPE_CHECKING:
    from components.evaluation.config import EvaluateConfig
    from components.evaluation.held_out import HeldOut
    from components.evaluation.results import GeneratedImage, Results
    from components.evaluation.training_facts import TrainingFacts
    from model.transfusion import Transfusion

KIND = "evaluation items"
ITEMS, PICTURES = "items.parquet", "pictures.parquet"
# Of a document's digest: 64 bits.
DIGITS = 16
# How a model is asked is a part of it: its bundle carries the guidance and the steps that it was measured with.
OF_THE_MODEL = ("guidance_scale", "num_solver_steps", "batch_size")


class KeptItems(NamedTuple):
    """What `keep_items` wrote."""

    items: Mapping[str, Items]
    """Of each figure that was measured item by item."""
    held_out: Mapping[str, str]
    """Held-out document -> digest of it, as `digests_of` makes them."""
    settings: Mapping[str, Any]
    """Of the evaluation, but for those of the model; keys joined by dots. CLIP's weights are their digest, not their path."""
    process: Mapping[str, Any]
    """The model's diffusion process."""
    autoencoder: str = ""
    documents: str = ""
    """Digests: of the autoencoder, and of the corpora's documents, training ones among them."""
    pictures: Sequence[KeptPicture] = ()
    """The first ones that were generated from prompts, in the order of the report."""
    scans: str = ""
    """Digest of the scans that the digit classifier was trained on."""


def measured_on(
    held_out: HeldOut, training: TrainingFacts, model: Transfusion, config: EvaluateConfig, results: Results
) -> dict[str, Any]:
    """What `keep_items` notes of an evaluation."""
    settings = flatten({name: value for name, value in asdict(config).items() if name not in OF_THE_MODEL})
    if clip := results.facts.get("clip"):
        # The same weights may lie elsewhere, and others at the same place.
        settings["weights.clip"] = f"sha256 {clip['weights_sha256'][:DIGITS]}"
    facts = {"settings": settings, "process": model.config.process._asdict(), "scans": digest(training.scans)[:DIGITS]}
    return {"held_out": digests_of(held_out), **facts}


def digests_of(held_out: HeldOut) -> dict[str, str]:
    """Of each document by its name: of its text, or of its caption, its pictures and every other caption of the same pictures.

    Nothing else counts, whatever the training documents, autoencoder and tokenizer are, and how many documents were read.
    """
    captions: dict[tuple[bytes, ...], list[str]] = {}
    for image in held_out.images:
        captions.setdefault(image.pictures, []).append(image.caption or "")
    found = {document.name: _digest([document.text.encode()]) for document in held_out.texts}
    for image in held_out.images:
        said = [image.caption or "", *sorted(captions[image.pictures])]
        found[image.name] = _digest([*(text.encode() for text in said), *image.pictures])
    return found


def keep_items(
    folder: Path,
    items: Mapping[str, Items],
    facts: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    pictures: Sequence[GeneratedImage] = (),
) -> None:
    """Write items and pictures, and a manifest that vouches for them. facts: of `measured_on`. evaluation: its manifest."""
    write_bytes(folder / ITEMS, items_file(dict(items)))
    write_bytes(folder / PICTURES, pictures_file(pictures))
    ancestors = evaluation[ANCESTORS] | {evaluation["kind"]: content_digest(evaluation)}
    write_manifest(folder, kind=KIND, names=[ITEMS, PICTURES], ancestors=ancestors, **facts)


def check_items(folder: Path, evaluation: Mapping[str, Any]) -> None:
    """BadInput unless the folder is what was kept of the evaluation of this manifest."""
    manifest = read_manifest(folder, kind=KIND)
    if manifest.get(ANCESTORS, {}).get(evaluation["kind"]) != content_digest(evaluation):
        raise BadInput(f"{folder} holds the items of another evaluation; run evaluate again, or `dvc repro`")


def read_items(folder: Path, *, remedy: str = "") -> KeptItems:
    """What `keep_items` wrote. BadInput where its bytes are not those any more. remedy: what the message tells to do."""
    manifest = read_manifest(folder, kind=KIND, remedy=remedy)
    try:
        ancestors, held_out, settings = manifest[ANCESTORS], dict(manifest["held_out"]), dict(manifest["settings"])
        process, made_of = dict(manifest["process"]), {kind: ancestors.get(kind, "") for kind in ("autoencoder", "documents")}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadInput(f"{folder} does not say what its items were measured on; {remedy or 'run evaluate again'}") from None
    pictures = pictures_from((folder / PICTURES).read_bytes()) if PICTURES in manifest["files"] else ()
    items, scans = items_from((folder / ITEMS).read_bytes()), str(manifest.get("scans", ""))
    return KeptItems(items, held_out, settings, process, **made_of, pictures=pictures, scans=scans)


def items_or_why(folder: Path) -> tuple[KeptItems | None, str]:
    """The items of a folder and "", or None and why there are none; without what to do, for the folder may be a copy."""
    try:
        return read_items(folder), ""
    except BadInput as error:
        return None, str(error).replace(str(folder), folder.name).partition("; ")[0]


def _digest(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        # Its length first, so that no two lists of parts read alike.
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:DIGITS]
