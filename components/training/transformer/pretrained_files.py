"""The files of the weights that a training begins with: found, or refused, without a look at a weight."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from core.errors import BadInput
from core.files import digest, read_json, sha256
from core.manifest import MANIFEST, read_manifest

# The digest of a run, and the fact of manifests, that say which weights a training began with; without it, the seed's.
PRETRAINED = "pretrained"
BUNDLE, LLAMA = "bundle", "llama"
CONFIG, WEIGHTS, INDEX, TOKENIZER, AUTOENCODER = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "autoencoder",
)
AGAIN = "copy the bundle again, or export it anew"


def kind_of(folder: Path) -> Literal["bundle", "llama"]:
    """What lies there; BadInput where it is neither a bundle nor a model as Hugging Face lays models out."""
    if (folder / MANIFEST).is_file():
        return BUNDLE
    if not (folder / CONFIG).is_file():
        raise BadInput(
            f"train.pretrained: {folder} is no bundle, which has a {MANIFEST}, and no model as Hugging Face lays models out,"
            f" with a {CONFIG}; name the folder of one"
        )
    return LLAMA


def pretrained_files(folder: Path) -> list[Path]:
    """All files that are read; BadInput where one is missing."""
    if kind_of(folder) == BUNDLE:
        below = sorted(path for path in (folder / AUTOENCODER).rglob("*") if path.is_file())
        return [folder / name for name in (MANIFEST, CONFIG, WEIGHTS, TOKENIZER)] + below
    files = [folder / CONFIG, folder / TOKENIZER, *weight_files(folder)]
    for file in files:
        if not file.is_file():
            raise BadInput(f"train.pretrained: {file} is missing{_remedy(file.name)}")
    return files


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a Hugging Face model, those of its index where it has one."""
    index = folder / INDEX
    if index.is_file():
        content = read_json(index)
        listed = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
            raise BadInput(f"train.pretrained: {index} has no weight_map, a table of tensors and their files")
        return sorted({index, *(folder / name for name in listed.values())})
    return sorted(folder.glob("*.safetensors")) or [folder / WEIGHTS]


def pretrained_digest(folder: Path) -> str:
    """Hex sha256 of all that decides what a training begins with. A bundle's bytes are checked against its manifest."""
    if kind_of(folder) == BUNDLE:
        for name in (CONFIG, WEIGHTS, TOKENIZER, AUTOENCODER):
            read_manifest(folder, kind=BUNDLE, under=name, remedy=AGAIN)
    # The manifest tells when a bundle was measured too, which decides nothing.
    files = [file for file in pretrained_files(folder) if file.name != MANIFEST]
    return digest({str(file.relative_to(folder)): sha256(file) for file in files})


def _remedy(name: str) -> str:
    if name == TOKENIZER:
        return "; AutoTokenizer.from_pretrained(...).save_pretrained(...) of Hugging Face's transformers writes it"
    return ", which the index lists" if name not in (CONFIG, WEIGHTS) else ""
