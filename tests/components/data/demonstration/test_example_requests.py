"""The demonstration's requests are well-formed, held out, and half about pairs that no scene shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.data.config import ScenesConfig, SplitShares
from components.data.demonstration.example_requests import beginning, scene_prompts, write_requests
from components.data.demonstration.scenes import kept_out_pairs, make_scenes, read_caption
from components.data.documents import SPLITS, Document, ImageSegment, TextSegment, write_documents
from core.manifest import read_manifest

KEPT_OUT = kept_out_pairs(3, 5)


def corpus(folder: Path, splits: tuple[str, ...] = SPLITS) -> list[Document]:
    config = ScenesConfig(num_train=10, num_validation=10, num_test=10, num_kept_out_pairs=3)
    shares = SplitShares(validation=0.1, test=0.1)
    documents = list(make_scenes(config, shares, seed=5, caption_first_share=0.8, source="scenes"))
    prose = [(split, f"{split} text {n} goes on and on, word after word.") for split in SPLITS for n in range(5)]
    documents += [Document(key=text, source="prose", split=split, segments=(TextSegment(text),)) for split, text in prose]
    for split in splits:
        write_documents(folder, split, [document for document in documents if document.split == split], 8)
    return documents


def requests_of(folder: Path) -> list[dict[str, Any]]:
    read_manifest(folder, kind="requests")
    return [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]


def test_demonstration_requests(tmp_path: Path) -> None:
    documents = corpus(tmp_path / "documents")
    number = write_requests(tmp_path / "requests", tmp_path / "documents", kept_out=KEPT_OUT, has_scenes=True, own=(), seed=5)
    lines = requests_of(tmp_path / "requests")
    by_task = {task: [line for line in lines if line["task"] == task] for task in ("text_to_image", "image_to_text", "text")}
    assert number == len(lines) == 24
    assert [len(found) for found in by_task.values()] == [12, 8, 4]
    assert len({line["id"] for line in lines}) == 24
    test = [document for document in documents if document.split == "test"]
    images = [image for document in test for image in document.images]
    pictures = [(tmp_path / "requests" / line["image"]).read_bytes() for line in by_task["image_to_text"]]
    assert pictures == images[:8]
    texts = [document.texts[0] for document in test if not document.images]
    assert all(any(text.startswith(line["prompt"]) and text != line["prompt"] for text in texts) for line in by_task["text"])


def test_half_of_the_prompts_name_a_kept_out_pair() -> None:
    kept = []
    for prompt in scene_prompts(12, KEPT_OUT, 5):
        objects = read_caption(prompt)
        assert objects is not None
        kept.append(sum((thing.digit, thing.colour) in KEPT_OUT for thing in objects))
    assert kept == [0, 1] * 6
    assert all(read_caption(prompt) for prompt in scene_prompts(12, (), 5))


def test_own_corpora_give_their_own_captions(tmp_path: Path) -> None:
    documents = corpus(tmp_path / "documents")
    write_requests(tmp_path / "requests", tmp_path / "documents", kept_out=(), has_scenes=False, own=(), seed=5)
    prompts = [line["prompt"] for line in requests_of(tmp_path / "requests") if line["task"] == "text_to_image"]
    captions = [document.texts[0] for document in documents if document.split == "test" and document.images]
    assert prompts == captions[:12]


def test_pictures_of_ones_own_come_before_the_demonstrations(tmp_path: Path) -> None:
    """Also where the scenes stay in the list; text that one's own corpora lack is still asked for."""
    documents = corpus(tmp_path / "documents", ())
    pictures = [image for document in documents for image in document.images]
    for split in SPLITS:
        of_split = [document for document in documents if document.split == split]
        mine = [("a cat", 0), ("a dog", 1), ("a cat", 2)]
        of_split += [
            Document(key=f"{split} {n}", source="mine", split=split, segments=(TextSegment(text), ImageSegment(pictures[n])))
            for text, n in mine
        ]
        write_documents(tmp_path / "documents", split, of_split, 8)
    write_requests(tmp_path / "a", tmp_path / "documents", kept_out=KEPT_OUT, has_scenes=True, own=["mine"], seed=5)
    lines = requests_of(tmp_path / "a")
    assert [line["prompt"] for line in lines if line["task"] == "text_to_image"] == ["a cat", "a dog"]
    asked = [(tmp_path / "a" / line["image"]).read_bytes() for line in lines if line["task"] == "image_to_text"]
    assert asked == pictures[:3]
    assert len([line for line in lines if line["task"] == "text"]) == 4


def test_without_a_test_split_another_stands_in_and_text_alone_gives_text_requests(tmp_path: Path) -> None:
    corpus(tmp_path / "documents", ("train", "validation"))
    write_requests(tmp_path / "a", tmp_path / "documents", kept_out=(), has_scenes=False, own=(), seed=5)
    assert {line["task"] for line in requests_of(tmp_path / "a")} == {"text_to_image", "image_to_text", "text"}
    assert all("validation" in line["prompt"] for line in requests_of(tmp_path / "a") if line["task"] == "text")
    text = Document(key="k", source="s", split="test", segments=(TextSegment("one two three four"),))
    write_documents(tmp_path / "text", "test", [text], 8)
    write_requests(tmp_path / "b", tmp_path / "text", kept_out=(), has_scenes=False, own=(), seed=5)
    assert requests_of(tmp_path / "b") == [{"id": "text-00", "task": "text", "prompt": "one two"}]


def test_beginnings_end_after_a_word() -> None:
    assert beginning("alpha beta gamma delta") == "alpha beta"
    assert beginning("word " * 100) == "word " * 31 + "word"
    assert beginning("unbroken") == "unbr"
    assert beginning("x") == "x"
