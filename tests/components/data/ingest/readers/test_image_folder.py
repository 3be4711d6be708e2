"""Folders of pictures with captions beside them become documents, and bad pairs are rejected one by one."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from core.errors import BadInput
from tests.components.data.corpora import picture, read, reasons


def write_pairs(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(picture(number))
        (folder / f"{name}.txt").write_text(f"caption of {name}")


def test_pairs_of_a_folder_and_of_folders_within(tmp_path: Path) -> None:
    names = ["b", "a.v2", "sub/c", "sub/deep/d", "B"]
    write_pairs(tmp_path, names)
    (tmp_path / "sub/c.png").rename(tmp_path / "sub/c.JPG")
    for other in ("notes.md", ".hidden.png", "sub/._c.txt", "sub/table.csv"):
        (tmp_path / other).write_bytes(b"not of the corpus")
    documents, rejected = read("image_folder", tmp_path)
    assert rejected == []
    assert {key: document.texts for key, document in documents.items()} == {name: (f"caption of {name}",) for name in names}
    assert list(documents) == sorted(names)


def test_bad_pairs_are_rejected_alone(tmp_path: Path) -> None:
    write_pairs(tmp_path, ["good", "two", "junk", "blank", "utf8", "folder"])
    (tmp_path / "two.jpg").write_bytes(picture(1))
    (tmp_path / "junk.png").write_bytes(b"junk")
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "utf8.txt").write_bytes(b"\xff")
    (tmp_path / "image only.png").write_bytes(picture(2))
    (tmp_path / "text only.txt").write_text("x")
    (tmp_path / "folder.png").unlink()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(picture(3))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("x")
    documents, rejected = read("image_folder", tmp_path)
    assert list(documents) == ["good", "\\udcff"]
    assert sorted(reasons(rejected)) == sorted(
        [
            ("two", "several files of one kind under one key"),
            ("junk", "image is not PNG, JPEG, WEBP"),
            ("blank", "missing caption"),
            ("utf8", "invalid UTF-8"),
            ("image only", "missing caption"),
            ("text only", "missing image"),
            ("folder", "missing image"),
        ]
    )


def test_a_caption_per_line(tmp_path: Path) -> None:
    write_pairs(tmp_path, ["a", "b"])
    (tmp_path / "a.txt").write_text("one\ntwo\n\n")
    documents, _ = read("image_folder", tmp_path, caption_per_line=True)
    assert {key: document.texts[0] for key, document in documents.items()} == {"a#0": "one", "a#1": "two", "b": "caption of b"}
    documents, _ = read("image_folder", tmp_path)
    assert documents["a"].texts == ("one\ntwo",)
    (tmp_path / "a.txt").write_bytes("eins\r\n\r\nzw\u00f6\n".encode("utf-16"))
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfuno\r\ndos\r\n")
    documents, rejected = read("image_folder", tmp_path, caption_per_line=True)
    assert [document.texts for document in documents.values()] == [("eins",), ("zw\u00f6",), ("uno",), ("dos",)]
    assert rejected == []


def test_several_folders_by_a_glob_and_a_folder_by_url(tmp_path: Path) -> None:
    for folder in ("x1", "x2", "y"):
        write_pairs(tmp_path / folder, ["a", "b"])
    documents, _ = read("image_folder", f"{tmp_path}/x*")
    assert list(documents) == ["x1/a", "x1/b", "x2/a", "x2/b"]
    memory = fsspec.filesystem("memory")
    for path in sorted((tmp_path / "y").iterdir()):
        memory.pipe(f"/photos/{path.name}", path.read_bytes())
    documents, rejected = read("image_folder", "memory://photos")
    assert (list(documents), rejected) == (["a", "b"], [])


def test_folders_keep_their_keys_apart_wherever_the_glob_is(tmp_path: Path) -> None:
    """Two folders of one name, and a folder inside another that the glob finds too."""
    for folder in ("2020/photos", "2021/photos", "2021/photos/sub"):
        write_pairs(tmp_path / folder, ["a"])
    (tmp_path / "notes.md").write_text("beside the folders")
    for path in (f"{tmp_path}/*/photos", f"{tmp_path}/**", f"{tmp_path}/{{2020,2021}}/photos"):
        documents, rejected = read("image_folder", path)
        assert (sorted(documents), rejected) == (["2020/photos/a", "2021/photos/a", "2021/photos/sub/a"], []), path


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'mine' has no folder"):
        read("image_folder", tmp_path / "nowhere")
    with pytest.raises(BadInput, match="'mine' is empty"):
        read("image_folder", tmp_path)
