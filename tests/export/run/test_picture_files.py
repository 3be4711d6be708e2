"""A picture that a request names is a file of a sane size below the requests' folder, or that request's error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.errors import BadPrompt
from export.run.picture_files import MAX_IMAGE_BYTES, read_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "requests"
    (place / "images").mkdir(parents=True)
    (place / "images/a.png").write_bytes(b"a picture")
    (tmp_path / "secret").write_bytes(b"a secret")
    return place


def refused(folder: Path, name: str) -> str:
    with pytest.raises(BadPrompt) as error:
        read_picture(folder, name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200
    return str(error.value)


def test_a_file_and_links_below_the_folder_are_read(folder: Path) -> None:
    (folder / "images/link.png").symlink_to("a.png")
    (folder / "linked").symlink_to("images")
    # The folder itself may be reached through a link.
    (folder.parent / "other").symlink_to("requests")
    for place, name in ((folder, "images/a.png"), (folder, "linked/link.png"), (folder.parent / "other", "images/a.png")):
        assert read_picture(place, name) == b"a picture"


def test_links_out_of_the_folder_are_refused(folder: Path) -> None:
    (folder / "out.png").symlink_to("../secret")
    (folder / "absolute.png").symlink_to(folder.parent / "secret")
    (folder / "outside").symlink_to("..")
    (folder / "twice.png").symlink_to("out.png")
    for name in ("out.png", "absolute.png", "outside/secret", "twice.png"):
        assert refused(folder, name).endswith("is a link out of the folder of the requests")


def test_what_is_no_file_is_refused_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "loop").symlink_to("loop")
    assert refused(folder, "pipe") == "image 'pipe' is not a file"
    assert "link out of the folder" in refused(folder, "zero")
    assert "image 'images' is not a file" == refused(folder, "images")
    assert "cannot be read" in refused(folder, "loop")
    assert "is missing" in refused(folder, "images/none.png")
    assert "cannot be read" in refused(folder, "images/a.png/b")


@pytest.mark.parametrize("name", ["a\0b", "half \ud83d", "n" * 300, "n" * 5000])
def test_names_that_no_file_can_have_are_refused(folder: Path, name: str) -> None:
    assert "cannot be read" in refused(folder, name)


def test_a_giant_is_refused_and_not_read_whole(folder: Path) -> None:
    with (folder / "giant").open("wb") as file:
        # Takes no room on the disk, and more than there is in memory if it were read.
        file.truncate(2**41)
    assert refused(folder, "giant") == "image has more than 64 MiB"
    with (folder / "largest").open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES)
    assert len(read_picture(folder, "largest")) == MAX_IMAGE_BYTES
