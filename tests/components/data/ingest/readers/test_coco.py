"""COCO's captions become documents, with bad entries rejected one by one and a broken file refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadInput
from core.png import decode_png
from tests.components.data.corpora import read, reasons, write_images


def write_coco(folder: Path, images: list[Any], annotations: list[Any]) -> Path:
    """The file as COCO lays it out: info and licenses among the lists, annotations in an order of their own."""
    path = folder / "captions_train.json"
    info = {"description": "made", "year": 2017}
    licenses = [{"id": 1, "name": "none"}]
    path.write_text(json.dumps({"info": info, "images": images, "licenses": licenses, "annotations": annotations}))
    return path


def image(number: int) -> dict[str, Any]:
    return {"license": 1, "file_name": f"{number:012d}.jpg", "height": 24, "width": 32, "id": number}


def captions(numbers: list[int]) -> list[dict[str, Any]]:
    """Annotation k names numbers[k]."""
    return [{"image_id": number, "id": 900 + k, "caption": f"caption {k} of {number}"} for k, number in enumerate(numbers)]


def test_each_caption_is_a_document_or_one_is_chosen(tmp_path: Path) -> None:
    write_images(tmp_path / "train", [image(n)["file_name"] for n in range(4)])
    numbers = [3, 0, 3, 2, 1, 0, 3, 2, 3, 3, 2]
    path = write_coco(tmp_path, [image(n) for n in (2, 0, 1, 3)], captions(numbers))
    documents, rejected = read("coco", path, images=str(tmp_path / "train"))
    assert rejected == []
    texts = {key: document.texts[0] for key, document in documents.items()}
    assert list(texts) == ["2#0", "2#1", "2#2", "0#0", "0#1", "1", "3#0", "3#1", "3#2", "3#3", "3#4"]
    assert texts["3#1"] == "caption 2 of 3" and texts["0#1"] == "caption 5 of 0" and texts["1"] == "caption 4 of 1"
    by_image = {key: {document.images for name, document in documents.items() if name[0] == key} for key in "0123"}
    assert all(len(found) == 1 for found in by_image.values()) and len(set.union(*by_image.values())) == 4
    for key in "0123":
        assert len({document.split for name, document in documents.items() if name[0] == key}) == 1
    assert {decode_png(document.images[0]).shape for document in documents.values()} == {(16, 16, 3)}

    chosen, rejected = read("coco", path, images=str(tmp_path / "train"), captions="one")
    assert rejected == [] and list(chosen) == ["2", "0", "1", "3"]
    assert all(document.texts[0].endswith(f"of {key}") for key, document in chosen.items())
    # Not always the same place of the list.
    many = captions([n for n in range(4) for _ in range(9)])
    path = write_coco(tmp_path, [image(n) for n in range(4)], many)
    chosen, _ = read("coco", path, images=str(tmp_path / "train"), captions="one")
    assert len({int(document.texts[0].split()[1]) % 9 for document in chosen.values()}) > 1


def test_bad_entries_are_rejected_alone(tmp_path: Path) -> None:
    write_images(tmp_path / "train", [image(n)["file_name"] for n in range(2)])
    (tmp_path / "train/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (tmp_path / "secret.jpg").write_bytes((tmp_path / "train" / image(0)["file_name"]).read_bytes())
    images = [
        image(0),
        image(1),
        {"id": 2, "file_name": "gone.jpg"},
        {"id": 3, "file_name": "broken.jpg"},
        {"id": 4, "file_name": "../secret.jpg"},
        {"id": 5, "file_name": "https://example.org/a.jpg"},
        {"id": 6},
        {"id": 7, "file_name": ["a"]},
        {"id": 1, "file_name": "other.jpg"},
        {"file_name": "a.jpg"},
        "image",
        {"id": "nocaption", "file_name": image(0)["file_name"]},
    ]
    annotations: list[Any] = [
        *captions([0, 1, 2, 3, 4, 5, 6, 7, 2]),
        {"image_id": 99, "caption": "of nothing"},
        {"caption": "of nothing either"},
        None,
        {"image_id": 0, "caption": None},
        {"image_id": 0, "caption": "\ud800"},
        {"image_id": 0},
    ]
    path = write_coco(tmp_path, images, annotations)
    documents, rejected = read("coco", path, images=str(tmp_path / "train"))
    assert {key: document.texts for key, document in documents.items()} == {
        "0#0": ("caption 0 of 0",),
        "1": ("caption 1 of 1",),
    }
    name = "captions_train.json"
    assert reasons(rejected) == [
        (f"{name} image 8", "duplicate key"),
        (f"{name} image 9", "image has no id"),
        (f"{name} image 10", "image has no id"),
        (f"{name} annotation 10", "annotation has no image_id"),
        (f"{name} annotation 11", "annotation has no image_id"),
        (f"{name} id 0 caption 1", "missing caption"),
        (f"{name} id 0 caption 2", "invalid UTF-8"),
        (f"{name} id 0 caption 3", "missing caption"),
        (f"{name} id 2 caption 0", "image file is missing"),
        (f"{name} id 2 caption 1", "image file is missing"),
        (f"{name} id 3", "image data is broken"),
        (f"{name} id 4", "image path leads out of the images folder"),
        (f"{name} id 5", "image is a URL, and none is fetched"),
        (f"{name} id 6", "missing image"),
        (f"{name} id 7", "image name is no file name"),
        (f"{name} id nocaption", "missing caption"),
        (f"{name} annotation 9", "caption of an unknown image"),
    ]
    # Records out and rejected are the annotations and the images without any: nothing is lost, nothing doubled.
    assert len(documents) + len(rejected) == len(annotations) + 3 + 1


@pytest.mark.parametrize("fault", ["cut", "junk after", "no object", "nested", "no images"])
def test_a_file_that_is_no_coco_file_is_refused(tmp_path: Path, fault: str) -> None:
    write_images(tmp_path / "train", [image(0)["file_name"]])
    path = write_coco(tmp_path, [image(0)], captions([0]))
    whole = path.read_text()
    path.write_text(
        {
            "cut": whole[:-10],
            "junk after": whole + "{}",
            "no object": "[]",
            "nested": '{"images": ' + "[" * 100_000,
            "no images": '{"annotations": []}',
        }[fault]
    )
    with pytest.raises(BadInput, match=r"captions_train\.json"):
        read("coco", path, images=str(tmp_path / "train"))


def test_the_images_folder_must_be_there(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [image(0)], captions([0]))
    with pytest.raises(BadInput, match=r"'mine' has no images folder at .*nowhere"):
        read("coco", path, images=str(tmp_path / "nowhere"))
