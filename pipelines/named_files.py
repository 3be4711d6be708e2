"""What params.yaml names outside the graph: the paths, and a fingerprint of what is at each.

One dictionary a stage, {} where its parameters name nothing: entries by what they are of ("photos path"), each with the path
as the parameters say it (`at`), the number of files, their bytes, and a digest of names, sizes and times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from components.data.config import BUILT_IN, NO_IMAGES, CorpusConfig
from components.training.autoencoder.given_files import lpips_files, pretrained_files
from core.fingerprint import Fingerprint, fingerprint, local_entries
from export.run.requests import read_requests
from pipelines import paths
from pipelines.sections import Params

Found = dict[str, dict[str, Any]]


def named_paths(params: Params) -> dict[str, dict[str, str]]:
    """The paths that a stage's parameters name, by the entries of its file."""
    config, corpora = params.autoencoder, _given(params)
    with_images = [corpus for corpus in corpora if corpus.images not in ("", NO_IMAGES)]
    return {
        "ingest": {f"{corpus.name} path": corpus.path for corpus in corpora}
        | {f"{corpus.name} images": corpus.images for corpus in with_images},
        "autoencoder": {"pretrained": config.pretrained} if config.pretrained else {"lpips_weights": config.loss.lpips_weights},
        "infer": {"requests": params.infer.requests},
    }


def _given(params: Params) -> list[CorpusConfig]:
    return [corpus for corpus in params.ingest.corpora if corpus.format not in BUILT_IN]


def _corpora(params: Params) -> Found:
    given = _given(params)
    if not given:
        return {}
    # The readers' libraries take longer to import than all else here takes.
    from components.data.ingest.watched import corpus_fingerprint

    found = {corpus: corpus_fingerprint(corpus, not_below=paths.WRITTEN) for corpus in given}
    return {
        f"{corpus.name} {what}": _entry(corpus.images if what == "images" else corpus.path, entry)
        for corpus, parts in found.items()
        for what, entry in parts.items()
    }


def _autoencoder(params: Params) -> Found:
    config, found = params.autoencoder, Found()
    if config.pretrained:
        found["pretrained"] = _files(config.pretrained, pretrained_files(Path(config.pretrained)))
    if config.loss.lpips_weights and not config.pretrained:
        found["lpips_weights"] = _files(config.loss.lpips_weights, lpips_files(Path(config.loss.lpips_weights)))
    return found


def _requests(params: Params) -> Found:
    """The file and the pictures that its good lines name, there or not."""
    path = Path(params.infer.requests)
    if path.absolute().is_relative_to(paths.REQUESTS.absolute()):
        return {}
    named = {request.image_name for request in read_requests(path).good if request.image_name}
    at = params.infer.requests
    return {"requests": _files(at, [path]), "pictures": _files(at, (path.parent / name for name in named))}


def _files(at: str, files: Iterable[Path]) -> dict[str, Any]:
    return _entry(at, fingerprint(local_entries(map(str, files))))


def _entry(at: str, found: Fingerprint) -> dict[str, Any]:
    """at: the path as the parameters say it; what was found at another is no answer for it."""
    return {"at": at, **found._asdict()}


LOOKS: dict[str, Callable[[Params], Found]] = {"ingest": _corpora, "autoencoder": _autoencoder, "infer": _requests}
"""By stage. BadInput, as the stage itself says it, where nothing is at a path or a store does not answer."""
