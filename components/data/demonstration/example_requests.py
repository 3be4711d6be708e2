"""The requests that batch inference answers until there are others: prompts, held-out pictures, beginnings of text."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from components.data.demonstration.scenes import PHRASINGS, Pair, SceneObject, describe, random_objects, seen_pairs
from components.data.documents import SPLITS, Document, read_documents
from core.files import fresh_folder, write_bytes, write_text
from core.manifest import write_manifest
from core.random import generator

KIND = "requests"
FILE = "requests.jsonl"
NUM_PROMPTS, NUM_PICTURES, NUM_BEGINNINGS = 12, 8, 4
MAX_BEGINNING_CHARS = 160


def write_requests(
    folder: Path, documents: Path, *, kept_out: Sequence[Pair], has_scenes: bool, own: Collection[str], seed: int
) -> int:
    """Write requests.jsonl, the pictures it names and a manifest into `folder`; returns the number of requests.

    own: the corpora that are not the demonstration's. Where they have pictures, prompts are captions of theirs that were held
    out, and new scenes where the demonstration's scenes alone have some. Pictures and beginnings are of their documents too,
    where they have any, from the test split, and from another split only where the test split has none.
    """
    fresh_folder(folder)
    with_image = _examples(documents, max(NUM_PROMPTS, NUM_PICTURES), own, with_image=True)
    of_scenes = has_scenes and not any(document.source in own for document in with_image)
    captions = list(dict.fromkeys(document.texts[0] for document in with_image))[:NUM_PROMPTS]
    prompts = scene_prompts(NUM_PROMPTS, kept_out, seed) if of_scenes else captions
    lines = [
        {"id": f"picture-{number:02d}", "task": "text_to_image", "prompt": prompt} for number, prompt in enumerate(prompts)
    ]
    for number, document in enumerate(with_image[:NUM_PICTURES]):
        name = f"images/{number:02d}.png"
        write_bytes(folder / name, document.images[0])
        lines.append({"id": f"caption-{number:02d}", "task": "image_to_text", "image": name})
    for number, document in enumerate(_examples(documents, NUM_BEGINNINGS, own, with_image=False)):
        lines.append({"id": f"text-{number:02d}", "task": "text", "prompt": beginning(document.texts[0])})
    write_text(folder / FILE, "".join(json.dumps(line) + "\n" for line in lines))
    write_manifest(folder, kind=KIND, records={FILE: len(lines)})
    return len(lines)


def scene_prompts(number: int, kept_out: Sequence[Pair], seed: int) -> list[str]:
    """Captions of scenes, every other one with one kept-out pair (all seen where none is kept out)."""
    rng = generator(seed, 4)
    seen = seen_pairs(kept_out)
    prompts = []
    for index in range(number):
        objects = random_objects(rng, seen)
        if kept_out and index % 2:
            digit, colour = kept_out[index // 2 % len(kept_out)]
            objects = (SceneObject(digit, colour, objects[0].place), *objects[1:])
        prompts.append(describe(objects, int(rng.integers(len(PHRASINGS)))))
    return prompts


def beginning(text: str) -> str:
    """The first half of a text, at most 160 characters, cut after a word; a text without a space whole."""
    cut = text[: min(MAX_BEGINNING_CHARS, max(1, len(text) // 2))]
    return cut.rpartition(" ")[0] or cut


def _examples(documents: Path, number: int, own: Collection[str], *, with_image: bool) -> list[Document]:
    """The first documents of the most held-out split that has any of this kind, of the user's own corpora if they have any."""
    for sources in [own, None] if own else [None]:
        for split in reversed(SPLITS):
            found = _of_kind(documents, split, number, sources, with_image)
            if found:
                return found
    return []


def _of_kind(documents: Path, split: str, number: int, sources: Collection[str] | None, with_image: bool) -> list[Document]:
    """sources: the corpora to take them from, None for all."""

    def fitting() -> Iterator[Document]:
        for document in read_documents(documents, split):
            if document.texts and bool(document.images) == with_image and (sources is None or document.source in sources):
                yield document

    return [document for document, _ in zip(fitting(), range(number), strict=False)]
