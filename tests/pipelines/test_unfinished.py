"""A stage that is done removes its own unfinished work, all of it, and no one else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.unfinished import forget


def make(folder: Path, num_bytes: int = 10) -> Path:
    (folder / "run").mkdir(parents=True)
    (folder / "run/state").write_bytes(bytes(num_bytes))
    return folder


def test_only_its_own_folder_goes_and_the_others_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own, other, third = (make(tmp_path / "train" / name, 3 * 2**19) for name in ("aaa", "bbb", "ccc"))
    forget(own)
    assert sorted(tmp_path.rglob("state")) == [other / "run/state", third / "run/state"]
    assert capfd.readouterr().out == (
        f"{tmp_path / 'train'} keeps the unfinished work of 2 other configurations (3 MiB): they resume from there; "
        "remove the folders that are not wanted any more\n"
    )
    forget(third)
    assert "of one other configuration (2 MiB)" in capfd.readouterr().out
    forget(other)
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr().out == ""
    forget(other)


def test_what_a_kill_left_of_a_removal_goes_too(tmp_path: Path) -> None:
    make(tmp_path / "train" / "gone-aaa")
    forget(make(tmp_path / "train" / "bbb"))
    assert list(tmp_path.iterdir()) == []


def test_other_files_stay(tmp_path: Path) -> None:
    own = make(tmp_path / "train" / "aaa")
    (tmp_path / "train/notes.txt").touch()
    forget(own)
    assert list((tmp_path / "train").iterdir()) == [tmp_path / "train/notes.txt"]
