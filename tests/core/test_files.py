"""A file is written whole or not at all, and a folder takes the place of another so, whenever the process is killed."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import BadInput
from core.files import (
    NO_LINKS,
    atomic_replace,
    atomic_write,
    link_or_copy,
    named,
    read_fields,
    read_json,
    write_bytes,
    write_json,
)
from core.manifest import read_manifest, write_manifest


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[" * 200_000])
def test_a_report_that_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"report\.json is not JSON"):
        read_json(tmp_path / "report.json")


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    """The system names none where a disk is full."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left on device: '/disk/part'"), named(Path("/disk/part")):
        raise full
    with pytest.raises(OSError, match=f"'{tmp_path}/x'"), atomic_write(tmp_path / "x"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for other in (OSError("of a library"), OSError(errno.ENOENT, "x"), OSError(errno.EIO, "x", "/mine")):
        with pytest.raises(OSError) as caught, named(tmp_path):
            raise other
        assert caught.value.filename in (None, "/mine")


KILLED = """
import os, signal, sys
from pathlib import Path
from core.files import atomic_write
with atomic_write(Path(sys.argv[1])) as partial:
    partial.write_bytes(b"half")
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("content", ["[]", "{}", "3", "null", '{"name": 1}', '"version"'])
def test_a_report_without_its_fields_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(BadInput, match=r"report\.json does not hold name and version; delete it"):
        read_fields(tmp_path / "report.json", "name", "version")
    (tmp_path / "report.json").write_text('{"name": 1, "version": 2, "more": 3}')
    assert read_fields(tmp_path / "report.json", "name", "version") == {"name": 1, "version": 2, "more": 3}


def test_what_a_killed_process_left_of_a_file_goes_with_the_next_write(tmp_path: Path) -> None:
    def write(how: str) -> int:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        return subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a"), how], env=environment, check=False).returncode

    of_a_living, of_another = tmp_path / f".a.{os.getpid()}.partial", tmp_path / f".b.a.{2**22 + 1}.partial"
    of_a_living.touch()
    of_another.touch()
    assert [write("killed"), write("killed")] == [-signal.SIGKILL] * 2
    assert len(list(tmp_path.iterdir())) == 3 and not (tmp_path / "a").exists()
    assert write("ends") == 0
    assert sorted(tmp_path.iterdir()) == sorted([of_a_living, of_another, tmp_path / "a"])


@pytest.mark.parametrize("number", sorted(set(NO_LINKS)), ids=errno.errorcode.get)
def test_where_a_file_cannot_have_two_names_it_is_copied(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "a").write_bytes(b"1234")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").stat().st_nlink == 2
    monkeypatch.setattr(os, "link", refused)
    link_or_copy(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"1234" and (tmp_path / "c").stat().st_nlink == 1


def test_a_link_that_fails_for_another_reason_fails(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    with pytest.raises(FileExistsError):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"2"


def fail_half_way(path: Path) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(b"half")
        raise RuntimeError("disk full")


def test_a_file_stands_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_bytes(path, b"before")
    with pytest.raises(RuntimeError, match="disk full"):
        fail_half_way(path)
    assert [name.name for name in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"before"
    with atomic_write(path) as partial:
        partial.write_bytes(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    write_json(path, {"b": 1, "a": "é"})
    assert json.loads(path.read_bytes()) == {"a": "é", "b": 1}


def folder_with(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "inner").mkdir()
    (folder / "inner/file").write_text(content)
    write_manifest(folder, kind="made")
    return folder


@pytest.fixture
def other_disk() -> Iterator[Path]:
    """A folder on another file system than the temporary one."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        assert Path(folder).stat().st_dev != Path(tempfile.gettempdir()).stat().st_dev
        yield Path(folder)


def content_of(folder: Path) -> str:
    assert read_manifest(folder, kind="made")["files"].keys() == {"inner/file"}
    return (folder / "inner/file").read_text()


@pytest.mark.parametrize("before", ["nothing", "a folder", "a linked folder", "what a kill left"])
@pytest.mark.parametrize("disk", ["same", "other"])
def test_a_folder_is_published_whole_over_what_stood_there(tmp_path: Path, other_disk: Path, disk: str, before: str) -> None:
    source = folder_with((tmp_path if disk == "same" else other_disk) / "work/new", "new")
    target = tmp_path / "artifacts/made"
    if before == "a linked folder":
        target.parent.mkdir()
        target.symlink_to(folder_with(tmp_path / "elsewhere/made", "old"))
    elif before != "nothing":
        folder_with(target, "old")
    if before == "what a kill left":
        target.replace(target.with_name(".made.replaced"))
        folder_with(target.with_name(".made.incoming"), "half")
    atomic_replace(source, target)
    assert content_of(target) == "new"
    assert target.is_symlink() == (before == "a linked folder")
    assert not source.exists()
    assert [path.name for path in target.resolve().parent.iterdir()] == ["made"]


@pytest.mark.parametrize("disk", ["same", "other"])
def test_what_stood_there_stays_where_publishing_fails(tmp_path: Path, other_disk: Path, disk: str) -> None:
    target = folder_with(tmp_path / "artifacts/made", "old")
    source = folder_with((tmp_path if disk == "same" else other_disk) / "work/new", "new")
    (source / "inner/link").symlink_to("nowhere")  # which cannot be copied, nor brought to disk
    with pytest.raises(OSError):
        atomic_replace(source, target)
    assert content_of(target) == "old"
    assert [path.name for path in target.parent.iterdir()] == ["made"]
    (source / "inner/link").unlink()
    atomic_replace(source, target)
    assert content_of(target) == "new"


def test_a_copy_that_finds_no_room_leaves_nothing(tmp_path: Path, other_disk: Path) -> None:
    target = folder_with(tmp_path / "artifacts/made", "old")
    source = folder_with(other_disk / "work/new", "new" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError):
            atomic_replace(source, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert content_of(target) == "old"
    assert [path.name for path in target.parent.iterdir()] == ["made"]
    atomic_replace(source, target)
    assert content_of(target) == "new" * 100_000


@pytest.mark.parametrize("disk", ["same", "other"])
@pytest.mark.parametrize("call", range(1, 12))
def test_a_kill_while_publishing_loses_neither(tmp_path: Path, other_disk: Path, disk: str, call: int) -> None:
    """A process that ends, without a word, before its n-th rename, copy or removal."""
    target = folder_with(tmp_path / "artifacts/made", "old")
    source = folder_with((tmp_path if disk == "same" else other_disk) / "work/new", "new")
    if (child := os.fork()) == 0:
        _die_before(call)
        atomic_replace(source, target)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    standing = target if target.exists() else target.with_name(".made.replaced")
    assert content_of(standing) in ("old", "new")
    if content_of(standing) == "old":
        assert content_of(source) == "new"
        atomic_replace(source, target)
    assert content_of(target) == "new"
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)


def _die_before(call: int) -> None:
    calls = itertools.count(1)

    def watched(function: Callable[..., object]) -> Callable[..., object]:
        def instead(*arguments: object, **options: object) -> object:
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return instead

    for owner, name in ((os, "rename"), (os, "replace"), (os, "unlink"), (os, "rmdir"), (os, "fsync"), (shutil, "copyfile")):
        setattr(owner, name, watched(getattr(owner, name)))
