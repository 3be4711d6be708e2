"""What a stage is given, with the check that all of it was made from the same ancestors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from components.data.quarantine import read_validation
from components.runtime.ancestors import check_ancestors, check_report
from core.errors import BadInput
from core.images import Preparation
from core.manifest import manifest_of, read_manifest
from pipelines import paths

FOLDERS = {
    "tokenizer": paths.TOKENIZER,
    "documents": paths.DOCUMENTS,
    "autoencoder": paths.AUTOENCODER,
    "latents": paths.LATENTS,
    "train": paths.TRAIN,
    "evaluation": paths.EVALUATION,
}
FROM_ELSEWHERE = "; where the bundle came from elsewhere, remove the report, which is not its own"


class Given(NamedTuple):
    """manifests: of each kind that was asked for. ancestors: of whatever is made from all of it, for its manifest."""

    manifests: dict[str, dict[str, Any]]
    ancestors: dict[str, str]


def given(*kinds: str, parts: Mapping[str, str | None] | None = None, bundle: Mapping[str, Any] | None = None) -> Given:
    """Read manifests, and a gate's verdict with its quarantine; BadInput unless bytes are right and all belongs together.

    kinds: as in components/runtime/ancestors.py. parts: of a kind whose files are not all read here, what the names of those
    begin with that are compared with the manifest; None for no file, where their reader compares them. bundle: the manifest
    of an opened bundle, which belongs to the rest too.
    """
    manifests = {kind: _manifest(kind, (parts or {}).get(kind, "")) for kind in kinds}
    places = {_place(kind): manifest for kind, manifest in manifests.items()}
    return Given(manifests, check_ancestors(places | ({paths.BUNDLE: bundle} if bundle else {})))


def preparation_of(kind: str, manifests: Mapping[str, Mapping[str, Any]]) -> Preparation:
    """How the corpus's pictures were prepared, by a manifest of this kind; BadInput for one from before it was noted."""
    noted = manifests[kind].get("preparation")
    if noted is None:
        raise BadInput(f"{FOLDERS[kind]} does not say how its pictures were prepared; run `dvc repro`, which makes it anew")
    return Preparation(**noted)


def of_bundle(bundle: Mapping[str, Any], *, parity_needed: bool = False) -> dict[str, str]:
    """The ancestors of what is made with the bundle of this manifest; BadInput where the parity report is another bundle's.

    It need not be there: a bundle is written only after its parity was found good, and may have come from elsewhere.
    """
    if parity_needed or paths.PARITY.exists():
        expected, otherwise = bundle.get("parity_sha256"), "" if parity_needed else FROM_ELSEWHERE
        check_report(paths.PARITY, expected, of=paths.BUNDLE, stage="export", otherwise=otherwise)
    return check_ancestors({paths.BUNDLE: bundle})


def _manifest(kind: str, under: str | None) -> dict[str, Any]:
    if gate := _gate(kind):
        return read_validation(gate, _place(kind), paths.QUARANTINE / f"{gate}.jsonl")
    folder = FOLDERS[kind]
    return manifest_of(folder, kind=kind) if under is None else read_manifest(folder, kind=kind, under=under)


def _place(kind: str) -> Path:
    """The artefact's folder, or the gate's report."""
    gate = _gate(kind)
    return paths.REPORTS / "validate" / f"{gate}.json" if gate else FOLDERS[kind]


def _gate(kind: str) -> str:
    """documents or latents, where `kind` is a verdict on them; else nothing."""
    gate, _, verdict = kind.partition(" ")
    return gate if verdict else ""
