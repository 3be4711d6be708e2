"""Look at every path of params.yaml that a stage reads from, so that DVC reruns that stage when something there changed.

Runs in every `dvc repro`, because no dependency of a graph can be a list of paths that may be folders, globs or URLs; it
reads names, sizes and times, and what it writes changes only when those do. What is built in, and what the graph itself
writes, is not looked at. Where a path is not on this machine, as in a clone that took the results from DVC's remote, the entry
of that path is kept as it was.

ingest.corpora, ingest.tokenizer, autoencoder.pretrained, autoencoder.loss.lpips_weights, train.pretrained, evaluate.weights,
infer.requests
-> data/inputs/<stage>.json
"""

from __future__ import annotations

from pathlib import Path

from components.runtime.credentials import without_secrets
from core.errors import BadInput
from core.files import read_json, write_json
from core.text import counted
from pipelines import paths, stage
from pipelines.named_files import LOOKS, Found
from pipelines.sections import Params


def main(params: Params) -> None:
    """One file a stage, empty where its parameters name nothing."""
    for name in LOOKS:
        found = _found(name, params)
        write_json(paths.INPUTS / f"{name}.json", found)
        for what, entry in found.items():
            print(
                f"{name}: {what}: {counted(entry['files'], 'file')}, {entry['bytes'] / 2**20:.1f} MiB",
                flush=True,
            )


def _found(name: str, params: Params) -> Found:
    """What the looks find, each for itself. BadInput where one is refused, unless its path is away and was found before."""
    earlier, found = _earlier(paths.INPUTS / f"{name}.json"), Found()
    for look in LOOKS[name](params):
        try:
            found |= look.find()
        except BadInput as refusal:
            kept = {key: earlier[key] for key in look.keys if earlier.get(key, {}).get("at") == look.at}
            if not look.needed and look.is_away(refusal) and not kept.get(look.keys[0], {}).get("files"):
                found |= look.nothing()
                continue
            if look.keys[0] not in kept or not look.is_away(refusal):
                raise
            said = f"{name}: {without_secrets(str(refusal))}. The results made from it earlier are kept"
            print(f"{said}; it is needed only when {name} has to run again", flush=True)
            found |= kept
    return found


def _earlier(path: Path) -> Found:
    try:
        return read_json(path)
    except BadInput:
        return {}


if __name__ == "__main__":
    stage.run("inputs", __doc__, main)
