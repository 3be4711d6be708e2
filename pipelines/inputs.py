"""Look at every path of params.yaml that a stage reads from, so that DVC reruns that stage when something there changed.

Runs in every `dvc repro`, because no dependency of a graph can be a list of paths that may be folders, globs or URLs; it
reads names, sizes and times, and what it writes changes only when those do. What is built in, and what the graph itself
writes, is not looked at.

ingest.corpora, autoencoder.pretrained, autoencoder.loss.lpips_weights, infer.requests -> data/inputs/<stage>.json
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.data.config import BUILT_IN
from components.training.autoencoder.given_files import lpips_files, pretrained_files
from core.files import write_json
from core.fingerprint import fingerprint, local_entries
from export.run.requests import read_requests
from pipelines import paths, stage
from pipelines.sections import Params


def main(params: Params) -> None:
    """One file a stage, empty where its parameters name nothing."""
    found = {"ingest": _corpora(params), "autoencoder": _autoencoder(params), "infer": _requests(params)}
    for name, fingerprints in found.items():
        write_json(paths.INPUTS / f"{name}.json", fingerprints)
        for what, entry in fingerprints.items():
            print(f"{name}: {what}: {entry['files']} files, {entry['bytes'] / 2**20:.1f} MiB", flush=True)


def _corpora(params: Params) -> dict[str, Any]:
    given = [corpus for corpus in params.ingest.corpora if corpus.format not in BUILT_IN]
    if not given:
        return {}
    # The readers' libraries take longer to import than all else here takes.
    from components.data.ingest.watched import corpus_fingerprint

    found = {corpus.name: corpus_fingerprint(corpus, not_below=paths.WRITTEN) for corpus in given}
    return {f"{name} {what}": entry._asdict() for name, parts in found.items() for what, entry in parts.items()}


def _autoencoder(params: Params) -> dict[str, Any]:
    config, found = params.autoencoder, dict[str, Any]()
    if config.pretrained:
        found["pretrained"] = _files(pretrained_files(Path(config.pretrained)))
    if config.loss.lpips_weights and not config.pretrained:
        found["lpips_weights"] = _files(lpips_files(Path(config.loss.lpips_weights)))
    return found


def _requests(params: Params) -> dict[str, Any]:
    """The file and the pictures that its good lines name, there or not."""
    path = Path(params.infer.requests)
    if path.absolute().is_relative_to(paths.REQUESTS.absolute()):
        return {}
    named = {request.image_name for request in read_requests(path).good if request.image_name}
    return {"requests": _files([path]), "pictures": _files(path.parent / name for name in named)}


def _files(files: Iterable[Path]) -> dict[str, Any]:
    return fingerprint(local_entries(map(str, files)))._asdict()


if __name__ == "__main__":
    stage.run("inputs", __doc__, main)
