"""The model is evaluated on the right documents: what shards and documents say of each, and what a gate set aside."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.data.demonstration.scenes import SceneObject
from components.data.documents import Document, ImageSegment, Segment, TextSegment, write_documents
from components.data.shards import Shard, pack_keys, shard_path, write_shard
from components.evaluation.held_out import HeldOut, read_held_out, scene_objects
from components.evaluation.training_facts import read_training_facts, training_latents

SCENE = {"objects": [{"digit": 3, "colour": "red", "place": "top left"}], "scans": [12]}
OBJECTS = frozenset({SceneObject(3, "red", "top left")})


def document(key: str, *segments: Segment, split: str = "test", source: str = "c", **meta: Any) -> Document:
    return Document(key=key, source=source, split=split, segments=segments, meta=meta)


def shard_of(pieces: dict[str, tuple[list[int], int]]) -> Shard:
    """name -> (ids, number of images); the latents of image i are all i."""
    document_at = np.cumsum([0, *(len(ids) for ids, _ in pieces.values())])
    num_images = [count for _, count in pieces.values()]
    latents = np.arange(sum(num_images), dtype=np.float16)[:, None, None, None] * np.ones((1, 4, 2, 2), np.float16)
    keys, key_at = pack_keys(pieces)
    ids = np.array([id for entry, _ in pieces.values() for id in entry], np.int32)
    owner = np.repeat(np.arange(len(pieces), dtype=np.int32), num_images)
    first = np.zeros(len(latents), np.bool_)
    return Shard(ids, document_at, latents, latents, owner, np.flatnonzero(ids == 3), first, keys, key_at)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    picture, other = ImageSegment(b"png"), ImageSegment(b"other png")
    documents = [
        document("a", TextSegment("caption"), picture, **SCENE),
        document("b", TextSegment("naïve prose")),
        document("gone", TextSegment("never encoded")),
        document("c", picture, TextSegment("x"), picture),
        document("d#1", TextSegment("short")),
        document("e", other, TextSegment("late caption")),
    ]
    write_documents(tmp_path / "documents", "test", documents, 2)
    training = [
        document("t", TextSegment("train prose"), split="train"),
        document("bad", TextSegment("broken"), split="train"),
        document("s", TextSegment("y"), picture, split="train", objects=SCENE["objects"], scans=[7, 5]),
        document("late", picture, TextSegment("a beach"), split="train"),
        document("mute", picture, split="train"),
        document("two", picture, TextSegment("a pair"), picture, split="train"),
        document("worse", TextSegment("blurred"), picture, split="train"),
    ]
    write_documents(tmp_path / "documents", "train", training, 9)
    shown = document("v", picture, TextSegment("not trained on"), split="validation", objects=SCENE["objects"], scans=[5, 9])
    write_documents(tmp_path / "documents", "validation", [shown, document("w", TextSegment("no"), split="validation")], 9)
    first = {"c/a": ([1, 10, 3, 4, 2], 1), "c/b#0": ([1, 11, 12], 0), "c/b#1": ([12, 13, 2], 0)}
    second = {"c/c": ([1, 3, 4, 14, 3, 4, 2], 2), "c/d#1": ([1, 15, 2], 0), "c/e": ([1, 3, 4, 16, 2], 1)}
    write_shard(shard_path(tmp_path / "latents", "test", 0), shard_of(first))
    write_shard(shard_path(tmp_path / "latents", "test", 1), shard_of(second))
    learnt = {"c/s": ([1, 10, 3, 4, 2], 1), "c/late": ([1, 3, 4, 11, 2], 1), "c/two": ([1, 3, 4, 12, 3, 4, 2], 2)}
    write_shard(shard_path(tmp_path / "latents", "train", 0), shard_of(learnt))
    write_shard(
        shard_path(tmp_path / "latents", "train", 1), shard_of({"c/mute": ([1, 3, 4, 2], 1), "c/worse": ([1, 3, 4, 2], 1)})
    )
    return tmp_path / "documents", tmp_path / "latents"


def read(folders: tuple[Path, Path], *bad: str, max_images: int = 99, max_text_bytes: int = 999) -> HeldOut:
    return read_held_out(*folders, "test", quarantined=frozenset(bad), max_images=max_images, max_text_bytes=max_text_bytes)


def test_documents_are_joined_with_what_was_encoded(folders: tuple[Path, Path]) -> None:
    held_out = read(folders)
    prose, short = held_out.texts
    assert (prose.text, [piece.ids.tolist() for piece in prose.pieces]) == ("naïve prose", [[1, 11, 12], [12, 13, 2]])
    assert (short.text, [piece.ids.tolist() for piece in short.pieces]) == ("short", [[1, 15, 2]])
    scene, two, late = held_out.images
    assert (scene.name, scene.caption, scene.objects, scene.scans) == ("c/a", "caption", OBJECTS, (12,))
    assert scene.pictures == (b"png",)
    assert (two.caption, two.objects, two.stored.latents[:, 0, 0, 0].tolist()) == (None, None, [0, 1])
    assert (late.caption, late.stored.ids.tolist(), late.stored.latents.max()) == ("late caption", [1, 3, 4, 16, 2], 2)
    assert held_out.scenes == [scene]


def test_what_a_gate_set_aside_is_left_out(folders: tuple[Path, Path]) -> None:
    held_out = read(folders, "c/b#1", "c/c")
    assert [document.text for document in held_out.texts] == ["short"]
    assert [document.name for document in held_out.images] == ["c/a", "c/e"]


def test_limits_keep_the_first_documents(folders: tuple[Path, Path]) -> None:
    held_out = read(folders, max_images=2, max_text_bytes=1)
    assert [document.text for document in held_out.texts] == ["naïve prose"]
    assert [document.name for document in held_out.images] == ["c/a", "c/c"]


def test_captions_of_one_picture_count_as_one_image(tmp_path: Path) -> None:
    pictures = {name: ImageSegment(name.encode()) for name in "abc"}
    order = ("a#0", "a#1", "b#0", "c#0", "b#1", "a#2")
    documents = [document(key, TextSegment(f"of {key}"), pictures[key[0]]) for key in order]
    write_documents(tmp_path / "documents", "test", documents, 9)
    encoded = {f"c/{key}": ([1, 10, 3, 4, 2], 1) for key in order}
    write_shard(shard_path(tmp_path / "latents", "test", 0), shard_of(encoded))
    held_out = read((tmp_path / "documents", tmp_path / "latents"), max_images=2)
    assert [document.caption for document in held_out.images] == [f"of {key}" for key in order if key[0] != "c"]


def test_training_facts_are_prose_scans_and_captions(folders: tuple[Path, Path]) -> None:
    bad = frozenset({"c/bad", "c/worse"})
    facts = read_training_facts(*folders, quarantined=bad, num_pictures=2, seed=0)
    assert (facts.texts, facts.scans) == (["train prose"], [5, 7, 9])
    assert len(facts.captions) == 2
    assert facts.knows("y") and facts.knows("a beach")
    for other in ("", "Y", "y ", "train prose", "not trained on", "a pair", "blurred", "caption"):
        assert not facts.knows(other), other
    # Of "s" and "late" the same one; "mute" has no caption, and "two" holds two.
    assert facts.pictures == (b"png",)
    assert [part[:, 0, 0, 0].tolist() for part in facts.latents] == [[0, 1, 2, 3], [0]]


def test_latents_between_quarantined_ones_are_views_of_the_files(folders: tuple[Path, Path]) -> None:
    wanted = {("c/late",): [[0], [2, 3], [0, 1]], ("c/s", "c/mute"): [[1, 2, 3], [1]], ("c/two", "c/mute", "c/worse"): [[0, 1]]}
    for bad, values in wanted.items():
        found = [*training_latents(folders[1], frozenset(bad))]
        assert [part[:, 0, 0, 0].tolist() for part in found] == values
        # A copy would own its memory.
        assert not any(part.flags.owndata for part in found)


def test_a_large_split_of_latents_is_not_brought_into_memory(tmp_path: Path) -> None:
    """Neither for one quarantined document of training, nor for the few held-out ones that are evaluated."""
    num, shape = 64, (8, 64, 64)
    latents, names = np.zeros((num, *shape), np.float16), [f"c/{number}" for number in range(num)]
    keys, key_at = pack_keys(names)
    ids, at = np.tile(np.array([1, 3, 4, 2], np.int32), num), np.arange(num + 1) * 4
    owner, first = np.arange(num, dtype=np.int32), np.zeros(num, np.bool_)
    for split in ("train", "test"):
        write_shard(
            shard_path(tmp_path / "latents", split, 0),
            Shard(ids, at, latents, latents, owner, np.flatnonzero(ids == 3), first, keys, key_at),
        )
    pictures = [document(str(number), ImageSegment(f"png {number}".encode())) for number in range(num)]
    write_documents(tmp_path / "documents", "test", pictures, 9)
    tracemalloc.start()
    facts = read_training_facts(
        tmp_path / "documents", tmp_path / "latents", quarantined=frozenset({"c/7"}), num_pictures=2, seed=0
    )
    held_out = read((tmp_path / "documents", tmp_path / "latents"), max_images=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(map(len, facts.latents)) == num - 1 and len(held_out.images) == 2
    # Two of them as float32, beside what Python and Arrow need; the split is 4.2 MB.
    assert peak < latents.nbytes / 2


def corpora(folder: Path, split: str, sources: dict[str, int], others: Sequence[Document] = ()) -> tuple[Path, Path]:
    """Captioned pictures and texts of several corpora, one corpus after the other, and what else there is."""
    documents = [
        each
        for source, num in sources.items()
        for number in range(num)
        for each in (
            document(f"{number}", TextSegment("of it"), ImageSegment(f"{source}{number}".encode()), split=split, source=source),
            document(f"t{number}", TextSegment(f"{source}-{number:03}"), split=split, source=source),
        )
    ]
    write_documents(folder / "documents", split, [*documents, *others], 50)
    encoded = {f"{one.source}/{one.key}": ([1, 3, 4, 2] if one.images else [1, 10, 2], len(one.images)) for one in documents}
    write_shard(shard_path(folder / "latents", split, 0), shard_of(encoded))
    return folder / "documents", folder / "latents"


def test_every_corpus_is_evaluated_by_its_share(tmp_path: Path) -> None:
    held_out = read(corpora(tmp_path, "test", {"a": 30, "b": 10}), max_images=12, max_text_bytes=8 * 5)
    assert [one.name for one in held_out.images if one.name[0] == "a"] == [f"a/{number}" for number in range(9)]
    assert [one.name for one in held_out.images if one.name[0] == "b"] == ["b/0", "b/1", "b/2"]
    # So is what looks at the first few of those alone.
    assert Counter(one.name[0] for one in held_out.images[:4]) == {"a": 3, "b": 1}
    assert Counter(one.name[0] for one in held_out.texts) == {"a": 6, "b": 2}


def test_training_pictures_are_of_the_kind_that_is_generated_and_prose_is_of_every_corpus(tmp_path: Path) -> None:
    alone = [document(f"{number}", ImageSegment(f"{number}".encode()), split="train", source="d") for number in range(50)]
    folders = corpora(tmp_path, "train", {"a": 30, "b": 10}, alone)
    facts = read_training_facts(*folders, quarantined=frozenset(), num_pictures=99, seed=0, max_text_bytes=8 * 5)
    assert len(facts.pictures) == 40
    assert Counter(text[0] for text in facts.texts) == {"a": 6, "b": 2}
    # Without a caption anywhere, pictures alone are what training showed.
    folders = corpora(tmp_path / "alone", "train", {}, alone)
    assert len(read_training_facts(*folders, quarantined=frozenset(), num_pictures=99, seed=0).pictures) == 50


def test_a_users_meta_is_no_scene() -> None:
    assert scene_objects(SCENE) == OBJECTS
    for meta in (
        {},
        {"objects": ["cat", "dog"], "scans": []},
        {"objects": SCENE["objects"]},
        {"objects": [{"digit": 11, "colour": "red", "place": "top left"}], "scans": [1]},
        {"objects": [], "scans": []},
    ):
        assert scene_objects(meta) is None
