"""Documents that were met before are found, exactly and nearly; those that only resemble each other are kept."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from components.data.content_config import DuplicatesConfig
from components.data.documents import Document, ImageSegment, TextSegment
from components.data.ingest.duplicates import DuplicateFinder, Seen, content_digest, normalised, picture_hash
from core.images import to_square_png
from core.png import encode_png

EXACT = DuplicatesConfig(
    exact="drop", near="off", near_threshold=0.8, permutations=128, shingle_chars=5, image_distance=3, max_remembered=5000
)
NEAR = dataclasses.replace(EXACT, near="drop")
NEW = Seen(None, drop=False)
ROOT = Path(__file__).resolve().parents[4]


def document(*segments: str | bytes) -> Document:
    made = tuple(TextSegment(segment) if isinstance(segment, str) else ImageSegment(segment) for segment in segments)
    return Document(key="k", source="s", segments=made)


def picture(seed: int) -> bytes:
    """A soft picture, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return encode_png(np.asarray(Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("A red three",), ("a  RED\nthree ",), True),
        (("caf\u00e9",), ("cafe\u0301",), True),
        (("\uff21\uff22",), ("ab",), True),
        (("a red three",), ("a red tree",), False),
        (("a", "b"), ("a b",), False),
        (("a", picture(0)), ("A", picture(0)), True),
        (("a", picture(0)), (picture(0), "a"), True),
        (("a", picture(0), "b"), (picture(0), "a", "b"), False),
        (("a", "b"), ("b", "a"), False),
        ((picture(0), picture(1)), (picture(1), picture(0)), False),
        (("a", picture(0)), ("a", picture(1)), False),
        ((picture(0), picture(0)), (picture(0),), False),
        (("image 3\nabc",), (b"abc",), False),
    ],
)
def test_equal_words_and_pictures_are_equal_in_equal_order_and_as_a_pair_in_any(one: tuple, other: tuple, same: bool) -> None:
    assert (content_digest(document(*one)) == content_digest(document(*other))) is same
    finder = DuplicateFinder(EXACT)
    assert finder.see(document(*one)) == NEW
    assert finder.see(document(*other)) == (Seen("exact", drop=True) if same else NEW)


def test_the_first_is_kept_and_every_later_one_counted() -> None:
    seed = 11
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    texts = [f"text number {number}" for number in rng.integers(0, 300, 1000)]
    for policy in ("count", "drop"):
        finder = DuplicateFinder(dataclasses.replace(EXACT, exact=policy))
        seen = [finder.see(document(text)) for text in texts]
        firsts = [texts.index(text) == at for at, text in enumerate(texts)]
        assert [found.kind is None for found in seen] == firsts
        assert {found.drop for found in seen if found.kind} == {policy == "drop"}
        assert finder.counts == {"exact": 1000 - len(set(texts)), "near": 0, "image": 0}


def test_a_picture_met_before_is_counted_and_its_new_caption_kept() -> None:
    finder = DuplicateFinder(EXACT)
    assert finder.see(document("a cat", picture(0))) == NEW
    assert finder.see(document("a sleeping animal", picture(0))) == NEW
    assert finder.see(document(picture(0), picture(1), picture(1))) == NEW
    assert finder.counts == {"exact": 0, "near": 0, "image": 2}


def shingles(text: str, width: int) -> set[str]:
    words = normalised(text)
    return {words[at : at + width] for at in range(max(1, len(words) - width + 1))}


def jaccard(one: str, other: str) -> float:
    ours, theirs = shingles(one, 5), shingles(other, 5)
    return len(ours & theirs) / len(ours | theirs)


def edited(words: list[str], rng: np.random.Generator, num_edits: int) -> str:
    copy = list(words)
    for at in rng.integers(0, len(copy), num_edits):
        copy[at] = f"w{rng.integers(10**6)}"
    return " ".join(copy)


def test_near_texts_are_those_that_jaccard_calls_near() -> None:
    """The oracle is the similarity itself, of every text with every one that was kept."""
    seed = 12
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    finder, kept = DuplicateFinder(NEAR), []
    num_surely_near = num_surely_far = wrong = 0
    for _ in range(30):
        words = [f"word{rng.integers(10**6)}" for _ in range(rng.integers(40, 120))]
        for num_edits in (0, 1, 4, 12, 40):
            text = edited(words, rng, num_edits)
            similarity = max((jaccard(text, other) for other in kept), default=0.0)
            found = finder.see(document(text)).kind is not None
            # 128 permutations estimate a similarity of 0.8 with a deviation of 0.035.
            if similarity >= 0.9:
                num_surely_near += 1
                wrong += not found
            elif similarity <= 0.65:
                num_surely_far += 1
                wrong += found
            if not found:
                kept.append(text)
    assert num_surely_near > 20 and num_surely_far > 50
    assert wrong <= 1


def test_only_near_pictures_with_near_captions_are_near() -> None:
    photograph = Image.fromarray(load_sample_images().images[0])
    finder = DuplicateFinder(NEAR)
    same = "a palace behind a lake"
    others = ("the colours of autumn leaves", "wooden architecture", "tourists queue here", "1406: building begins")

    def shown(image: Image.Image, **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, **options)  # type: ignore[arg-type]
        return to_square_png(buffer.getvalue(), 64)

    assert finder.see(document(same, shown(photograph, format="PNG"))) == NEW
    copies = [
        shown(photograph, format="JPEG", quality=60),
        shown(photograph.resize((320, 213)), format="PNG"),
        shown(photograph.resize((320, 213)), format="WEBP", quality=70),
        shown(photograph.point(lambda value: value * 0.8), format="PNG"),
    ]
    for copy, other in zip(copies, others, strict=True):
        assert finder.see(document(same.upper(), copy)) == Seen("near", drop=True)
        assert finder.see(document(other, copy)) == NEW
    assert finder.see(document(same, shown(photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT), format="PNG"))) == NEW
    assert finder.see(document(same, shown(Image.fromarray(load_sample_images().images[1]), format="PNG"))) == NEW
    assert finder.see(document(same)) == NEW
    assert finder.counts["near"] == 4


def test_pictures_that_differ_in_three_bits_are_found_and_in_more_are_not() -> None:
    """Every picture's hash is compared with all others: those within the distance, and those alone, are near."""
    rng = np.random.default_rng(13)
    base = rng.integers(0, 256, (8, 9), np.uint8).astype(int)
    finder, hashes = DuplicateFinder(NEAR), []
    counted = {True: 0, False: 0}
    for _ in range(150):
        noisy = np.clip(base + rng.normal(0, rng.choice([4.0, 12.0]), base.shape), 0, 255).astype(np.uint8)
        png = encode_png(np.repeat(noisy[..., None], 3, axis=2))
        value = picture_hash(png)
        expected = any((value ^ other).bit_count() <= 3 for other in hashes)
        seen = finder.see(document("the same words", png))
        if seen.kind == "exact":
            continue
        assert (seen.kind == "near") is expected
        counted[expected] += 1
        if not expected:
            hashes.append(value)
    assert min(counted.values()) > 10


def test_a_phrase_that_all_captions_share_slows_nothing() -> None:
    finder = DuplicateFinder(dataclasses.replace(NEAR, max_remembered=2000))
    pictures = [picture(seed) for seed in range(200)]
    started_s = time.process_time()
    for round_ in range(10):
        for number, png in enumerate(pictures):
            finder.see(document(f"a photograph of a thing, number {number} of round {round_} in the catalogue of 1907", png))
            finder.see(document(f"page {number} of {round_}: this text begins as every other of its kind does, and then ends"))
    assert time.process_time() - started_s < 15


def test_what_is_remembered_is_bounded_and_the_newest_of_it() -> None:
    finder = DuplicateFinder(dataclasses.replace(NEAR, max_remembered=10))
    texts = [" ".join(f"{word}{number}" for word in ("alpha", "beta", "gamma", "delta")) for number in range(25)]
    assert all(finder.see(document(text)) == NEW for text in texts)
    assert finder.see(document(texts[24] + ".")).kind == "near"
    assert finder.see(document(texts[15] + ".")).kind == "near"
    assert finder.see(document(texts[14] + ".")) == NEW


def test_a_verdict_depends_on_the_documents_alone() -> None:
    program = (
        "import numpy as np\n"
        "from components.data.content_config import DuplicatesConfig\n"
        "from components.data.documents import Document, TextSegment\n"
        "from components.data.ingest.duplicates import DuplicateFinder\n"
        "config = DuplicatesConfig(exact='drop', near='drop', near_threshold=0.5, permutations=32, shingle_chars=3,"
        " image_distance=0, max_remembered=50)\n"
        "finder, rng = DuplicateFinder(config), np.random.default_rng(1)\n"
        "texts = [' '.join(map(str, rng.integers(0, 9, 6))) for _ in range(300)]\n"
        "print([finder.see(Document(key='k', source='s', segments=(TextSegment(text),))).kind for text in texts])\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    (verdicts,) = said
    assert verdicts.count("near") > 10 and verdicts.count("None") > 10


def test_dropping_near_ones_and_keeping_equal_ones_is_refused() -> None:
    with pytest.raises(ValueError, match="exact: 'count'"):
        dataclasses.replace(NEAR, exact="count")
