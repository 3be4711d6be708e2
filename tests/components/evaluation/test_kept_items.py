"""What two evaluations are compared by comes back as it was kept, and says what it was measured on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.evaluation.comparison import why_apart
from components.evaluation.held_out import HeldOut, ImageDocument, Stored, TextDocument
from components.evaluation.intervals import items_of
from components.evaluation.kept_items import KeptItems, check_items, digests_of, keep_items, measured_on, read_items
from components.evaluation.results import GeneratedImage, Results
from components.evaluation.training_facts import TrainingFacts
from core.errors import BadInput
from core.manifest import write_manifest
from core.png import decode_png
from model.transfusion import Transfusion
from tests.components.evaluation.test_suite import CONFIG

STORED = Stored(np.zeros(3, np.int64), np.zeros((1, 4, 2, 2), np.float32))


def image(name: str, caption: str | None, *pictures: bytes) -> ImageDocument:
    return ImageDocument(name, STORED, caption, pictures, None, ())


HELD_OUT = HeldOut(
    [TextDocument("prose/0", "a text", (STORED,)), TextDocument("prose/1", "another", (STORED,))],
    [image("c/0", "a cat", b"cat"), image("c/1", "a dog", b"dog"), image("c/2", "the same cat", b"cat")],
)


TRAINING = TrainingFacts([], [1, 2], frozenset())
OBJECTS, CLIP = "text_to_image/objects_right", "clip/score"


def changed(texts: Mapping[int, str] | None = None, images: Mapping[int, ImageDocument] | None = None) -> HeldOut:
    documents = [one._replace(text=(texts or {}).get(at, one.text)) for at, one in enumerate(HELD_OUT.texts)]
    return HeldOut(documents, [(images or {}).get(at, one) for at, one in enumerate(HELD_OUT.images)])


@pytest.mark.parametrize(
    ("other", "differing"),
    [
        (changed(), set()),
        (changed(texts={1: "another "}), {"prose/1"}),
        (changed(images={1: image("c/1", "a do", b"gdog")}), {"c/1"}),
        (changed(images={1: image("c/1", None, b"dog")}), {"c/1"}),
        (changed(images={1: image("c/1", "a dog", b"d", b"og")}), {"c/1"}),
        # All captions of a picture are its references, whichever document it is measured by.
        (changed(images={2: image("c/2", "that cat", b"cat")}), {"c/0", "c/2"}),
        (HeldOut(HELD_OUT.texts, [*HELD_OUT.images, image("c/3", "a bird", b"bird")]), {"c/3"}),
        # Nothing else of a document counts: not how it was encoded.
        (changed(images={1: HELD_OUT.images[1]._replace(stored=Stored(np.ones(9, np.int64), np.ones((1, 8, 1, 1))))}), set()),
    ],
)
def test_a_digest_is_of_what_a_document_holds(other: HeldOut, differing: set[str]) -> None:
    mine, theirs = digests_of(HELD_OUT), digests_of(other)
    assert {name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)} == differing


def test_a_digest_is_the_same_in_every_clone_and_version() -> None:
    """Else every comparison with a registered version would be of other documents."""
    assert digests_of(HeldOut(HELD_OUT.texts[:1], HELD_OUT.images[1:2])) == {
        "prose/0": "5c74c3b7e91487d2",
        "c/1": "9115240e934e1920",
    }


def test_the_models_own_settings_are_no_settings_of_the_evaluation(model: Transfusion) -> None:
    about = measured_on(HELD_OUT, TRAINING, model, CONFIG, Results())
    of_the_model = {"guidance_scale", "num_solver_steps", "batch_size"}
    assert not about["settings"].keys() & of_the_model
    assert about["settings"]["seed"] == CONFIG.seed and about["settings"]["retrieval.group_size"] == 2
    assert about["settings"]["digit_classifier.batch_size"] == 16, "the classifier's is no setting of the model"
    assert about["process"] == {"prediction_type": model.config.prediction_type, "zero_terminal_snr": False}
    assert about["held_out"] == digests_of(HELD_OUT)


def test_a_network_and_a_classifier_are_known_by_what_they_are_made_of(tmp_path: Path, model: Transfusion) -> None:
    """Not by where they lie, nor by the settings of their training alone."""

    def again(name: str, path: str = "", weights: str = "", scans: Sequence[int] = (1, 2)) -> KeptItems:
        config = dataclasses.replace(CONFIG, weights=dataclasses.replace(CONFIG.weights, clip=path))
        results = Results(facts={"clip": {"weights_sha256": weights}} if weights else {})
        about = measured_on(HELD_OUT, TRAINING._replace(scans=list(scans)), model, config, results)
        items = {key: items_of(["c/0", "c/1"], [1.0, 0.0], [1.0, 1.0]) for key in (OBJECTS, CLIP)}
        keep_items(tmp_path / name, items, about, write_manifest(tmp_path / "report", kind="evaluation", ancestors={}))
        return read_items(tmp_path / name)

    mine = again("mine", "a/clip", "1" * 64)
    assert [why_apart(key, mine, again("moved", "b/clip", "1" * 64)) for key in (OBJECTS, CLIP)] == ["", ""]
    assert "evaluate.weights.clip sha256 2222222222222222, and here sha256 1111111111111111" in why_apart(
        CLIP, mine, again("replaced", "a/clip", "2" * 64)
    )
    assert why_apart(OBJECTS, mine, again("other", "a/clip", "1" * 64, (1, 3))) == "by a classifier trained on other scans"
    assert again("none").settings["weights.clip"] == ""


def kept(folder: Path, model: Transfusion) -> dict[str, Any]:
    evaluation = write_manifest(folder / "report", kind="evaluation", ancestors={"autoencoder": "a", "documents": "b"})
    items = {"text/bits_per_byte": items_of(["prose/0", "prose/1"], [1.5, 2.5], [1.0, 3.0])}
    picture = GeneratedImage("seen", np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "a cat", "a dog", False)
    shown = [picture, picture._replace(read="", right=None)]
    keep_items(folder / "items", items, measured_on(HELD_OUT, TRAINING, model, CONFIG, Results()), evaluation, shown)
    return evaluation


def test_what_was_kept_comes_back(tmp_path: Path, model: Transfusion) -> None:
    evaluation = kept(tmp_path, model)
    check_items(tmp_path / "items", evaluation)
    with pytest.raises(BadInput, match="holds the items of another evaluation"):
        check_items(tmp_path / "items", write_manifest(tmp_path / "other", kind="evaluation", ancestors={}))
    found = read_items(tmp_path / "items")
    items = found.items["text/bits_per_byte"]
    assert (items.names, items.value) == (("prose/0", "prose/1"), 1.0)
    assert (found.autoencoder, found.documents, found.held_out) == ("a", "b", digests_of(HELD_OUT))
    assert (found.settings["loss_times"], found.process["prediction_type"]) == ([0.35, 0.8], model.config.prediction_type)
    first, second = found.pictures
    assert first[:4] == ("seen", "a cat", "a dog", False) and second[:4] == ("seen", "a cat", "", None)
    assert decode_png(first.png).tolist() == np.arange(48).reshape(4, 4, 3).tolist()


def test_what_is_not_whole_is_one_sentence(tmp_path: Path, model: Transfusion) -> None:
    kept(tmp_path, model)
    folder = tmp_path / "items"
    # As versions were kept that cannot be compared document by document.
    write_manifest(folder, kind="evaluation items", ancestors={}, held_out="digest", settings={}, process={})
    with pytest.raises(BadInput, match="does not say what its items were measured on; run evaluate again"):
        read_items(folder)
    kept(tmp_path, model)
    (folder / "items.parquet").write_bytes(b"")
    with pytest.raises(BadInput, match=r"items\.parquet does not have the bytes"):
        read_items(folder)
