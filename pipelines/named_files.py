"""What params.yaml names outside the graph: the paths, and a fingerprint of what is at each.

One dictionary a stage, {} where its parameters name nothing: entries by what they are of ("photos path"), each with the path
as the parameters say it, but without secrets (`at`), the number of files, their bytes, and a digest of names, sizes and times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from components.data.config import BUILT_IN, NO_IMAGES, CorpusConfig
from components.runtime.credentials import without_secrets
from components.training.autoencoder.given_files import lpips_files, pretrained_files
from components.training.transformer.pretrained_files import pretrained_files as start_files
from core.errors import BadInput
from core.fingerprint import Fingerprint, fingerprint, local_entries
from core.given_tokenizer import tokenizer_file
from export.run.registered import MODELS
from export.run.requests import read_requests
from pipelines import paths
from pipelines.sections import Params

Found = dict[str, dict[str, Any]]


class Look(NamedTuple):
    """One look at one path that params.yaml names."""

    at: str
    """The path as the parameters say it, without secrets."""
    keys: tuple[str, ...]
    """The entries that the look may make; the first is always among them."""
    find: Callable[[], Found]
    """Makes the entries; BadInput, as the stage itself says it, where nothing is there or a store does not answer."""
    is_away: Callable[[BadInput], bool]
    """Whether that refusal means that this machine does not have the path; otherwise what is there is wrong."""
    needed: bool = True
    """Whether the stage refuses to run without it; one that goes on says itself what it left out."""

    def nothing(self) -> Found:
        """The entry of a path at which there is nothing."""
        return {self.keys[0]: _entry(self.at, fingerprint([]))}


def _corpora(params: Params) -> list[Look]:
    given = [corpus for corpus in params.ingest.corpora if corpus.format not in BUILT_IN]
    return [look for corpus in given for look in _corpus(corpus)]


def _corpus(corpus: CorpusConfig) -> Iterator[Look]:
    """At the corpus's files, and at its folder of pictures where it names one."""
    # The readers' libraries take longer to import than all else here takes.
    from components.data.ingest.readers.locating import is_away
    from components.data.ingest.watched import images_fingerprint, path_fingerprints

    def entries(at: str, parts: dict[str, Fingerprint]) -> Found:
        return {f"{corpus.name} {part}": _entry(at, found) for part, found in parts.items()}

    yield Look(
        without_secrets(corpus.path),
        (f"{corpus.name} path", f"{corpus.name} beside"),
        lambda: entries(corpus.path, path_fingerprints(corpus, not_below=paths.WRITTEN)),
        partial(is_away, corpus.path),
    )
    if corpus.images not in ("", NO_IMAGES):
        yield Look(
            without_secrets(corpus.images),
            (f"{corpus.name} images",),
            lambda: entries(corpus.images, images_fingerprint(corpus)),
            partial(is_away, corpus.images),
        )


def _autoencoder(params: Params) -> list[Look]:
    pretrained, weights = params.autoencoder.pretrained, params.autoencoder.loss.lpips_weights
    if pretrained:
        return [_local(pretrained, ("pretrained",), lambda path: {"pretrained": pretrained_files(path)})]
    if weights:
        return [_local(weights, ("lpips_weights",), lambda path: {"lpips_weights": lpips_files(path)})]
    return []


def _tokenizer(params: Params) -> list[Look]:
    at = params.ingest.tokenizer
    return [_local(at, ("tokenizer",), lambda path: {"tokenizer": [_tokenizer_file(path)]})] if at else []


def _tokenizer_file(path: Path) -> Path:
    file = tokenizer_file(path)
    if not file.is_file():
        raise BadInput(f"ingest.tokenizer: {file} is not there")
    return file


def _start(params: Params) -> list[Look]:
    """A registered version is what it is: there is nothing to look at."""
    at = params.train.pretrained
    if not at or at.startswith(MODELS):
        return []
    return [_local(at, ("pretrained",), lambda path: {"pretrained": start_files(path)})]


def _weights(params: Params) -> list[Look]:
    named = asdict(params.evaluate.weights)
    return [_local(at, (name,), partial(_weight_files, name))._replace(needed=False) for name, at in named.items() if at]


def _weight_files(name: str, path: Path) -> dict[str, Iterable[Path]]:
    if not path.exists():
        raise BadInput(f"evaluate.weights.{name}: {path} is not there")
    return {name: sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]}


def _requests(params: Params) -> list[Look]:
    at = params.infer.requests
    if Path(at).absolute().is_relative_to(paths.REQUESTS.absolute()):
        return []
    return [_local(at, ("requests", "pictures"), _request_files)]


def _request_files(path: Path) -> dict[str, Iterable[Path]]:
    """The file and the pictures that its good lines name, there or not."""
    named = {request.image_name for request in read_requests(path).good if request.image_name}
    return {"requests": [path], "pictures": (path.parent / name for name in named)}


def _local(at: str, keys: tuple[str, ...], files: Callable[[Path], Mapping[str, Iterable[Path]]]) -> Look:
    """Where the parameters take no globs and no URLs."""
    path = Path(at)
    return Look(
        without_secrets(at),
        keys,
        lambda: {key: _entry(at, fingerprint(local_entries(map(str, found)))) for key, found in files(path).items()},
        lambda _: not path.exists(),
    )


def _entry(at: str, found: Fingerprint) -> dict[str, Any]:
    """at: the path as the parameters say it; what was found at another is no answer for it. The file is pushed with results."""
    return {"at": without_secrets(at), **found._asdict()}


LOOKS: dict[str, Callable[[Params], list[Look]]] = {
    "ingest": lambda params: [*_tokenizer(params), *_corpora(params)],
    "autoencoder": _autoencoder,
    "train": _start,
    "evaluate": _weights,
    "infer": _requests,
}
"""By stage."""
