"""Parquet tables become documents, with bad records rejected one by one and damaged files refused by name."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.documents import TextSegment
from core.errors import BadInput
from core.images import to_square_png
from tests.components.data.corpora import IMAGE_STRUCT, outline, picture, read, reasons, write_parquet


def test_parquet_with_an_image_struct(tmp_path: Path) -> None:
    images = pa.array([{"bytes": picture(n), "path": f"{n}.png"} for n in range(7)], IMAGE_STRUCT)
    write_parquet(
        tmp_path / "d/train-00000.parquet",
        image=images,
        caption=[f"caption {n}" for n in range(7)],
        label=list(range(7)),
    )
    documents, rejected = read("parquet", tmp_path / "d")
    assert rejected == []
    assert [document.texts for document in documents.values()] == [(f"caption {n}",) for n in range(7)]
    assert all(len(document.images) == 1 for document in documents.values())


def test_parquet_bad_records_are_rejected_alone(tmp_path: Path) -> None:
    images = [picture(0), None, b"junk", picture(3), picture(4), picture(5)]
    texts = ["a", "b", "c", None, "e", "f"]
    structs = pa.array([{"bytes": data, "path": "p"} for data in images[:5]] + [None], IMAGE_STRUCT)
    write_parquet(tmp_path / "a.parquet", image=structs, text=texts, key=["k0", "k1", "k2", "k3", "k0", "k5"])
    documents, rejected = read("parquet", tmp_path / "a.parquet")
    assert sorted(documents) == ["k0"]
    assert reasons(rejected) == [
        ("a.parquet record 1", "image file is missing"),
        ("a.parquet record 2", "image is not PNG, JPEG, WEBP"),
        ("a.parquet record 3", "missing caption"),
        ("a.parquet record 4", "duplicate key"),
        ("a.parquet record 5", "missing image"),
    ]


def test_parquet_of_text_alone_and_of_plain_bytes(tmp_path: Path) -> None:
    write_parquet(tmp_path / "text.parquet", content=["one", "two", ""], id=[10, 11, 12])
    documents, rejected = read("parquet", tmp_path / "text.parquet")
    assert {key: document.segments for key, document in documents.items()} == {
        "10": (TextSegment("one"),),
        "11": (TextSegment("two"),),
    }
    assert reasons(rejected) == [("text.parquet record 2", "missing text")]
    write_parquet(tmp_path / "jpg.parquet", jpg=[picture(1)], caption=["x"])
    assert len(next(iter(read("parquet", tmp_path / "jpg.parquet")[0].values())).images) == 1


def test_parquet_that_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, words=["x"], number=[1])
    with pytest.raises(BadInput, match=r"a\.parquet has the columns words, number"):
        read("parquet", path)
    write_parquet(path, text=["x" * 100] * 50)
    whole = path.read_bytes()
    for broken in (whole[:-30], b"", b"PAR1junkPAR1"):
        path.write_bytes(broken)
        with pytest.raises(BadInput, match=r"a\.parquet"):
            read("parquet", path)


def test_parquet_with_several_captions(tmp_path: Path) -> None:
    images = pa.array([{"bytes": picture(n), "path": None} for n in range(3)], IMAGE_STRUCT)
    captions = pa.array([["a", "b"], ["c"], []], pa.list_(pa.string()))
    write_parquet(tmp_path / "a.parquet", image=images, captions=captions, id=["x", "y", "z"])
    documents, rejected = read("parquet", tmp_path / "a.parquet")
    assert {key: document.texts for key, document in documents.items()} == {"x#0": ("a",), "x#1": ("b",), "y": ("c",)}
    assert documents["x#0"].images == documents["x#1"].images
    assert documents["x#0"].split == documents["x#1"].split
    assert reasons(rejected) == [("a.parquet record 2", "missing caption")]


def test_parquet_text_that_is_no_utf8_costs_one_record(tmp_path: Path) -> None:
    good = pa.array(["one", "two", "three"])
    bad = pa.Array.from_buffers(pa.string(), 3, [None, good.buffers()[1], pa.py_buffer(b"one\xff\xfeothree")])
    images = pa.array([{"bytes": picture(n), "path": None} for n in range(3)], IMAGE_STRUCT)
    write_parquet(tmp_path / "a.parquet", text=bad)
    write_parquet(tmp_path / "b.parquet", image=images, caption=bad.dictionary_encode(), id=bad)
    for name, keys in (("a", ["#0", "#2"]), ("b", ["one", "three"])):
        documents, rejected = read("parquet", tmp_path / f"{name}.parquet")
        assert [document.texts[0] for document in documents.values()] == ["one", "three"]
        assert [key.removeprefix(f"{tmp_path}/a.parquet") for key in documents] == keys
        assert reasons(rejected) == [(f"{name}.parquet record 1", "invalid UTF-8")]


def test_a_parquet_column_named_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=r"a\.parquet has two columns of one name"):
        read("parquet", tmp_path / "a.parquet")


def test_several_pictures_keep_their_order_on_either_side_of_the_caption(tmp_path: Path) -> None:
    column = pa.array([[picture(2 * n), picture(2 * n + 1)] for n in range(12)], pa.list_(pa.binary()))
    write_parquet(tmp_path / "a.parquet", images=column, caption=[f"caption {n}" for n in range(12)])
    documents, rejected = read("parquet", tmp_path / "a.parquet", caption_first_share=0.5)
    assert rejected == []
    for number, document in enumerate(documents.values()):
        assert document.images == tuple(to_square_png(picture(2 * number + k), 16) for k in range(2))
    assert {outline(document)[0] == "<image>" for document in documents.values()} == {True, False}
