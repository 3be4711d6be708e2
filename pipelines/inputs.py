"""Look at every path of params.yaml that a stage reads from, so that DVC reruns that stage when something there changed.

Runs in every `dvc repro`, because no dependency of a graph can be a list of paths that may be folders, globs or URLs; it
reads names, sizes and times, and what it writes changes only when those do. What is built in, and what the graph itself
writes, is not looked at. Where the files are not, as in a clone that took the results from DVC's remote, what stood there
before stands.

ingest.corpora, autoencoder.pretrained, autoencoder.loss.lpips_weights, infer.requests -> data/inputs/<stage>.json
"""

from __future__ import annotations

from pathlib import Path

from core.errors import BadInput
from core.files import read_json, write_json
from pipelines import paths, stage
from pipelines.named_files import LOOKS, Found, named_paths
from pipelines.sections import Params


def main(params: Params) -> None:
    """One file a stage, empty where its parameters name nothing."""
    for name in LOOKS:
        found = _found(name, params)
        write_json(paths.INPUTS / f"{name}.json", found)
        for what, entry in found.items():
            print(f"{name}: {what}: {entry['files']} files, {entry['bytes'] / 2**20:.1f} MiB", flush=True)


def _found(name: str, params: Params) -> Found:
    """What a look finds, or what the last one found where a path that is named is not here.

    BadInput where nothing was found at the same paths before, and the stage could only refuse them.
    """
    try:
        return LOOKS[name](params)
    except BadInput as error:
        named, earlier = named_paths(params)[name], _earlier(paths.INPUTS / f"{name}.json")
        # A store's address or a glob is no path here either; a path that is here and cannot be used is a mistake.
        away = any(not Path(at).exists() for at in named.values())
        if not away or not {what: entry.get("at") for what, entry in earlier.items()}.items() >= named.items():
            raise
        print(f"{name}: {error}. What was made of it before stands, until {name} has to run again", flush=True)
        return earlier


def _earlier(path: Path) -> Found:
    try:
        return read_json(path)
    except BadInput:
        return {}


if __name__ == "__main__":
    stage.run("inputs", __doc__, main)
