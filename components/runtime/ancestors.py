"""What an artefact was made from stands in its manifest, and inputs that do not belong together are refused.

A stage calls `check_ancestors` with the manifests of all that it reads, and writes what it returns into the manifest of what
it makes, as `ancestors`: kind -> digest of contents. An artefact so names everything it descends from, however far back, and
two artefacts belong together where they, and the ancestors they name, agree on one digest a kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import BadInput
from core.files import digest, sha256

ANCESTORS = "ancestors"
# A manifest's fact: names of files whose bytes differ from run to run (times, ids of runs) and that nothing is made from.
INCIDENTAL = "incidental"


class Kind(NamedTuple):
    """other: how a message calls another artefact of this kind. stage: what makes it, as it is called by hand."""

    other: str
    stage: str


# In the order of the graph, so that of several artefacts that are out of date the first to make anew is named.
KINDS = {
    "tokenizer": Kind("another tokenizer", "ingest"),
    "documents": Kind("other documents", "ingest"),
    "documents verdict": Kind("another verdict on the documents", "validate documents"),
    "autoencoder": Kind("another autoencoder", "autoencoder"),
    "latents": Kind("other latents", "encode"),
    "latents verdict": Kind("another verdict on the latents", "validate latents"),
    "train": Kind("another model", "train"),
    "evaluation": Kind("another evaluation", "evaluate"),
    "bundle": Kind("another bundle", "export"),
}


def content_digest(manifest: Mapping[str, Any]) -> str:
    """Hex sha256 of all that the manifest vouches for and says, but for incidental files; equal contents have equal ones."""
    incidental = manifest.get(INCIDENTAL, ())
    files = {name: entry for name, entry in manifest.get("files", {}).items() if name not in incidental}
    return digest({name: value for name, value in manifest.items() if name not in ("sha256", "files")} | {"files": files})


def check_ancestors(given: Mapping[Path, Mapping[str, Any]]) -> dict[str, str]:
    """The digests of all that is given and of its ancestors, by kind: the ancestors of what is made from it.

    given: where an artefact stands -> its manifest. BadInput where two of them were made from different ones; a manifest
    without ancestors (a given autoencoder's, say) claims nothing.
    """
    order = list(KINDS)
    ordered = sorted(given.items(), key=lambda item: order.index(item[1]["kind"]))
    found = {manifest["kind"]: (content_digest(manifest), place) for place, manifest in ordered}
    for place, manifest in ordered:
        for kind, wanted in manifest.get(ANCESTORS, {}).items():
            if kind in found and found[kind][0] != wanted:
                raise BadInput(_stale(place, manifest["kind"], kind, found[kind][1]))
    for place, manifest in ordered:
        for kind, wanted in manifest.get(ANCESTORS, {}).items():
            first, other = found.setdefault(kind, (wanted, place))
            if first != wanted:
                raise BadInput(_apart(other, place, kind))
    return {kind: content for kind, (content, _) in found.items()}


def check_report(report: Path, expected: str | None, *, of: Path, stage: str, otherwise: str = "") -> None:
    """BadInput unless `report` has the sha256 that was noted when `of` was written.

    stage: what writes both. otherwise: what else a user may do about a report that is another's.
    """
    if not report.is_file():
        raise BadInput(f"{report} is missing; run {stage} again, or `dvc repro`")
    if sha256(report) != expected:
        raise BadInput(f"{report} was not written with {of}; run {stage} again, or `dvc repro`{otherwise}")


def _stale(place: Path, kind: str, ancestor: str, here: Path) -> str:
    made = f"{place} was made from {KINDS[ancestor].other} than stands in {here}"
    return f"{made}; run {KINDS[kind].stage} again and then what follows it, or `dvc repro`"


def _apart(one: Path, other: Path, ancestor: str) -> str:
    known = KINDS.get(ancestor, Kind(f"another {ancestor}", ""))
    return f"{other} was made from {known.other} than {one} was; run `dvc repro`, which makes them anew from the same"
