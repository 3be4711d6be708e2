"""OBELICS-like and MMC4-like documents keep the order of their texts and images, bad ones rejected one by one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import BadInput
from core.images import to_square_png
from core.png import decode_png
from tests.components.data.corpora import IMAGE_STRUCT, outline, picture, read, reasons, write_images, write_jsonl

GOOD = {"images": [None, "a.png", None, None, "sub/b.png"], "texts": ["Intro.", None, "Middle.", "More.", None]}
GOOD_OUTLINE = ["Intro.", "<image>", "Middle.\n\nMore.", "<image>"]
BAD = [
    ({"images": ["https://example.org/a.png", None], "texts": [None, "x"]}, "image is a URL, and none is fetched"),
    ({"images": ["gone.png", None], "texts": [None, "x"]}, "image file is missing"),
    ({"images": ["sub", None], "texts": [None, "x"]}, "image file is missing"),
    ({"images": ["../a.png", None], "texts": [None, "x"]}, "image path leads out of the images folder"),
    ({"images": ["/etc/hostname", None], "texts": [None, "x"]}, "image path leads out of the images folder"),
    ({"images": ["a.png"], "texts": [None, "x"]}, "images and texts are not equally long"),
    ({"images": ["a.png", None], "texts": ["x", "y"]}, "images and texts do not take turns"),
    ({"images": [None, None], "texts": ["", None]}, "missing text"),
    ({"images": ["junk.png", None], "texts": [None, "x"]}, "image is not PNG, JPEG, WEBP"),
    ({"images": ["a.png", None], "texts": [None, " \n"]}, "missing text"),
    ({"images": [], "texts": []}, "missing text"),
    ({"texts": ["x"]}, "images is no list"),
]
# What a typed Parquet column cannot hold.
BAD_JSON = [
    ({"images": [None, 3], "texts": ["x", None]}, "image name is no file name"),
    ({"images": [None], "texts": [3]}, "text is not text"),
    ({"images": [None, None], "texts": ["x", ["y"]]}, "text is not text"),
    ({"images": [None], "texts": ["\ud800"]}, "invalid UTF-8"),
    ({"images": "a.png", "texts": ["x"]}, "images is no list"),
]


@pytest.fixture
def images(tmp_path: Path) -> str:
    folder = tmp_path / "images"
    write_images(folder, ["a.png", "sub/b.png", "c.png"])
    write_images(tmp_path, ["a.png"])
    (folder / "junk.png").write_bytes(b"no picture")
    return str(folder)


def test_obelics_lines(tmp_path: Path, images: str) -> None:
    bad = [*BAD, *BAD_JSON]
    records = [GOOD, *(record for record, _ in bad), {"id": "own", "images": [None, "c.png"], "texts": ["t", ""]}]
    write_jsonl(tmp_path / "o.jsonl", records)
    documents, rejected = read("obelics", tmp_path / "o.jsonl", images=images)
    assert [outline(document) for document in documents.values()] == [GOOD_OUTLINE, ["t", "<image>"]]
    assert list(documents)[1] == "own"
    first = next(iter(documents.values()))
    assert first.images == (to_square_png(picture(0), 16), to_square_png(picture(1), 16))
    assert reasons(rejected) == [(f"o.jsonl line {number}", reason) for number, (_, reason) in enumerate(bad, start=2)]
    (tmp_path / "o.jsonl.gz").write_bytes(gzip.compress((tmp_path / "o.jsonl").read_bytes()))
    assert len(read("obelics", tmp_path / "o.jsonl.gz", images=images)[0]) == 2


def test_obelics_table_of_file_names(tmp_path: Path, images: str) -> None:
    records = [GOOD, *(record for record, _ in BAD)]
    columns = {name: pa.array([record.get(name) for record in records], pa.list_(pa.string())) for name in ("images", "texts")}
    pq.write_table(pa.table(columns | {"metadata": ["[]"] * len(records)}), tmp_path / "o.parquet", row_group_size=4)
    documents, rejected = read("obelics", tmp_path / "o.parquet", images=images)
    assert [outline(document) for document in documents.values()] == [GOOD_OUTLINE]
    assert reasons(rejected) == [(f"o.parquet record {number}", reason) for number, (_, reason) in enumerate(BAD, start=1)]


@pytest.mark.parametrize("kind", ["struct", "binary"])
def test_obelics_table_with_the_images_in_it(tmp_path: Path, kind: str) -> None:
    data = [[picture(0), None], [None, picture(1), None], [b"junk"], [None]]
    texts = [[None, "after"], ["before", None, "after"], [None], ["alone"]]
    if kind == "struct":
        structs = [[value and {"bytes": value, "path": "on another machine.png"} for value in record] for record in data]
        column = pa.array(structs, pa.list_(IMAGE_STRUCT))
    else:
        column = pa.array(data, pa.list_(pa.binary()))
    pq.write_table(pa.table({"images": column, "texts": pa.array(texts, pa.list_(pa.string()))}), tmp_path / "o.parquet")
    documents, rejected = read("obelics", tmp_path / "o.parquet")
    found = [outline(document) for document in documents.values()]
    assert found == [["<image>", "after"], ["before", "<image>", "after"], ["alone"]]
    assert {decode_png(image).shape for document in documents.values() for image in document.images} == {(16, 16, 3)}
    assert reasons(rejected) == [("o.parquet record 2", "image is not PNG, JPEG, WEBP")]


def test_obelics_without_images_folder_or_columns(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "o.jsonl", [GOOD, {"images": [None], "texts": ["text alone"]}])
    documents, rejected = read("obelics", tmp_path / "o.jsonl")
    assert [outline(document) for document in documents.values()] == [["text alone"]]
    assert reasons(rejected) == [("o.jsonl line 1", "image file is missing")]
    pq.write_table(pa.table({"images": pa.array([["a"]]), "text": ["x"]}), tmp_path / "o.parquet")
    with pytest.raises(BadInput, match=r"o\.parquet has the columns images, text and none of texts"):
        read("obelics", tmp_path / "o.parquet")


def info(name: str, at: Any) -> dict[str, Any]:
    return {"image_name": name, "raw_url": "https://example.org/x", "matched_text_index": at, "matched_sim": 0.3}


def test_mmc4_images_stand_before_the_sentence_they_match(tmp_path: Path, images: str) -> None:
    texts = ["One.", "Two.", "Three.", "Four."]
    records = [
        {"text_list": texts, "image_info": [info("c.png", 2), info("a.png", 0), info("sub/b.png", 2)]},
        {"text_list": texts, "image_info": [info("a.png", 3)], "id": "last"},
        {"text_list": texts, "image_info": []},
    ]
    write_jsonl(tmp_path / "docs.jsonl", records)
    documents, rejected = read("mmc4", tmp_path / "docs.jsonl", images=images)
    assert rejected == []
    assert [outline(document) for document in documents.values()] == [
        ["<image>", "One. Two.", "<image>", "<image>", "Three. Four."],
        ["One. Two. Three.", "<image>", "Four."],
        ["One. Two. Three. Four."],
    ]
    assert next(iter(documents.values())).images == tuple(to_square_png(picture(n), 16) for n in (0, 2, 1))
    assert documents["last"].images == (to_square_png(picture(0), 16),)


def test_mmc4_bad_lines_are_rejected_alone(tmp_path: Path, images: str) -> None:
    bad: list[tuple[Any, str]] = [
        ({"text_list": ["x"], "image_info": [info("a.png", 1)]}, "matched_text_index names no text"),
        ({"text_list": ["x"], "image_info": [info("a.png", -1)]}, "matched_text_index names no text"),
        ({"text_list": ["x"], "image_info": [info("a.png", "0")]}, "matched_text_index names no text"),
        ({"text_list": ["x"], "image_info": [info("a.png", True)]}, "matched_text_index names no text"),
        ({"text_list": ["x"], "image_info": ["a.png"]}, "matched_text_index names no text"),
        ({"text_list": ["x"], "image_info": [info("gone.png", 0)]}, "image file is missing"),
        ({"text_list": ["x"], "image_info": [info("", 0)]}, "image is a URL, and none is fetched"),
        ({"text_list": ["x"], "image_info": [{"image_name": None, "matched_text_index": 0}]}, "missing image"),
        ({"text_list": ["x", 3], "image_info": []}, "text is not text"),
        ({"text_list": [], "image_info": []}, "missing text"),
        ({"image_info": []}, "text_list is no list"),
        ({"text_list": ["x"]}, "image_info is no list"),
        (["x"], "line is no JSON object"),
    ]
    write_jsonl(tmp_path / "docs.jsonl", [record for record, _ in bad] + [{"text_list": ["good"], "image_info": []}])
    with (tmp_path / "docs.jsonl").open("ab") as file:
        file.write(json.dumps({"text_list": ["cut"]}).encode()[:-3])
    documents, rejected = read("mmc4", tmp_path / "docs.jsonl", images=images)
    assert [outline(document) for document in documents.values()] == [["good"]]
    expected = [(f"docs.jsonl line {number}", reason) for number, (_, reason) in enumerate(bad, start=1)]
    assert reasons(rejected) == [*expected, (f"docs.jsonl line {len(bad) + 2}", "broken JSON")]
