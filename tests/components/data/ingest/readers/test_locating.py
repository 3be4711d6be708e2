"""Which files a path stands for: names that exist before patterns, braces, links once each, and no system's own files."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.data.ingest.readers.locating import locate, locate_folders
from components.data.ingest.readers.passed_over import SYSTEM, PassedOver, another_ending, is_system_path
from components.data.ingest.readers.walking import BROKEN_LINK, NO_PLAIN_FILE, READ_ALREADY
from core.errors import BadInput
from tests.components.data.corpora import corpus_of

SUFFIXES = (".jsonl",)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(path: Path | str, below: Path, passed_over: PassedOver | None = None) -> list[str]:
    """The files that `path` stands for, as paths below a folder."""
    return [os.path.relpath(file, below) for file in locate(corpus_of("jsonl", path), SUFFIXES, passed_over)[1]]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("set [2021]", ["set [2021]/1.jsonl", "set [2021]/2.jsonl"]),
        ("set [2021]/*.jsonl", ["set [2021]/1.jsonl", "set [2021]/2.jsonl"]),
        ("set [2021]/[1].jsonl", ["set [2021]/1.jsonl"]),
        ("set [2021]/{1..2}.jsonl", ["set [2021]/1.jsonl", "set [2021]/2.jsonl"]),
        ("a{b,c}d?", ["a{b,c}d?/0.jsonl"]),
        ("a{b,c}d?/*", ["a{b,c}d?/0.jsonl"]),
        ("a{b,c}d?/{0..0}.jsonl", ["a{b,c}d?/0.jsonl"]),
        ("plain/{007..009}.jsonl", ["plain/007.jsonl", "plain/008.jsonl", "plain/009.jsonl"]),
        ("{plain,set*}/*[17].jsonl", ["plain/007.jsonl", "set [2021]/1.jsonl"]),
        ("plain/{007,more/1}.jsonl", ["plain/007.jsonl", "plain/more/1.jsonl"]),
        ("plai?", ["plain/007.jsonl", "plain/008.jsonl", "plain/009.jsonl", "plain/more/1.jsonl"]),
        ("plain/**", ["plain/007.jsonl", "plain/008.jsonl", "plain/009.jsonl", "plain/more/1.jsonl"]),
        ("plain/{x}.jsonl.gz", ["plain/{x}.jsonl.gz"]),
        (".hidden/a.jsonl", [".hidden/a.jsonl"]),
        (".hidden", [".hidden/a.jsonl"]),
        (".hidden/*", [".hidden/a.jsonl"]),
    ],
)
def test_names_that_exist_come_before_patterns(tmp_path: Path, path: str, expected: list[str]) -> None:
    everything = ["set [2021]/1.jsonl", "set [2021]/2.jsonl", "set 2/3.txt", "a{b,c}d?/0.jsonl", "abdx/0.txt", "acdx/0.txt"]
    everything += ["plain/007.jsonl", "plain/008.jsonl", "plain/009.jsonl", "plain/more/1.jsonl", ".hidden/a.jsonl"]
    everything += ["plain/._007.jsonl", "plain/.git/1.jsonl"]
    touch(*(tmp_path / name for name in everything))
    if path.endswith(".gz"):
        touch(tmp_path / path)
    assert found(f"{tmp_path}/{path}", tmp_path) == expected
    assert found(f"file://{tmp_path}/{path}", tmp_path) == expected


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("{0..3}.jsonl", r"no \.jsonl files at .*/2\.jsonl, which .*\{0\.\.3\}\.jsonl stands for"),
        ("{no,none}/*.jsonl", r"no \.jsonl files at .*/no/\*\.jsonl, which"),
        ("{0..2.jsonl", "braces in .* are not balanced"),
        ("{0..99999999}.jsonl", "stand for over 1,000,000 paths"),
        ("gone.jsonl", r"no \.jsonl files at .*gone\.jsonl"),
        ("other", r"no \.jsonl files at .*other \(passed over: 1 files with another ending \(\.csv\) \(.*a\.csv\)\)"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, path: str, words: str) -> None:
    touch(*(tmp_path / name for name in ("0.jsonl", "1.jsonl", "3.jsonl", "other/a.csv")))
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=words):
        found(f"{tmp_path}/{path}", tmp_path)


def test_every_real_file_is_read_once_whatever_links_there_are(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("in/z/0.jsonl", "in/1.jsonl", "out/2.jsonl", "out/deep/3.jsonl", "alone/4.jsonl")))
    links = {"in/a": "in/z", "in/b": "out", "in/c": "out/deep", "in/circle": "in", "out/up": ".", "in/5.jsonl": "in/1.jsonl"}
    links |= {"in/6.jsonl": "alone/4.jsonl", "in/7.jsonl": "alone/4.jsonl", "in/8.jsonl": "nowhere", "in/9": "in/9"}
    for link, target in links.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    os.mkfifo(tmp_path / "in/10.jsonl")
    passed_over = PassedOver()
    # Through out/up the folder above is part of the corpus as well.
    expected = ["in/1.jsonl", "in/b/2.jsonl", "in/b/deep/3.jsonl", "in/b/up/alone/4.jsonl", "in/z/0.jsonl"]
    assert found(tmp_path / "in", tmp_path, passed_over) == expected
    assert set(passed_over.numbers) == {READ_ALREADY, BROKEN_LINK, NO_PLAIN_FILE}
    assert passed_over.numbers[NO_PLAIN_FILE] == 1 and passed_over.numbers[BROKEN_LINK] == 2


def test_folders_by_globs_leave_a_system_s_own_out(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a/1.png", "b/2.png", "__MACOSX/1.png", "@eaDir/1.png", "beside.png")))
    passed_over = PassedOver()
    _, folders = locate_folders(corpus_of("image_folder", f"{tmp_path}/*"), passed_over)
    assert list(folders.values()) == ["a", "b"]
    assert passed_over.numbers == {SYSTEM: 2, "files beside the folders that the path names": 1}


@pytest.mark.parametrize(
    "path",
    [
        *("._a.jpg", "x/.DS_Store", ".git/a.jpg", "x/.ipynb_checkpoints/a.jpg", "__MACOSX/a.jpg", "THUMBS.DB", "x/Desktop.ini"),
        *(
            "a.txt~",
            "#a.txt#",
            "~$a.txt",
            ".~lock.a.jsonl#",
            ".a.txt.swp",
            "a.txt.swo",
            ".syncthing.a.jpg.tmp",
            "a.jpg.crdownload",
        ),
        *("a.tar.part", "a.tar.PARTIAL", "a.tar.aria2", "a (Ann's conflicted copy 2013-01-01).txt", "a (conflicted copy).txt"),
        *("a (Case Conflict).jpg", "a.sync-conflict-20240501-101010-ABCDEFG.jpg", "t/_temporary/0/a.parquet"),
        *("t/_delta_log/0.checkpoint.parquet", "lost+found/a", "@eaDir/a.jpg", "Icon\r", "a.jpg.tmp"),
    ],
)
def test_what_systems_and_tools_leave_is_known_by_its_name(path: str) -> None:
    assert is_system_path(path)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "a.jpg",
            "./a.jpg",
            "../a.jpg",
            "_DSC0001.jpg",
            "a..jpg",
            "a~1.jpg",
            "#1.jpg",
            "tmp/a.jpg",
            "part/a.jpg",
            "a.tmp.jpg",
        ),
        *(
            "conflicted copy.jpg",
            "thumbs/a.jpg",
            "a (1).jpg",
            "a.part1.jpg",
            "x.part/a.jpg",
            "__pycache__ notes.txt",
            "git/a.jpg",
        ),
    ],
)
def test_what_people_name_so_is_data(path: str) -> None:
    assert not is_system_path(path)


def test_many_kinds_are_counted_together_and_a_path_of_this_machine_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    passed_over = PassedOver()
    for number in reversed(range(100)):
        for name in (f"{tmp_path}/a.{number}", "bad\udcff.csv"):
            passed_over.add(another_ending(name), name)
    assert len(passed_over.numbers) == 41 and passed_over.numbers.total() == 200
    assert passed_over.numbers["more of other kinds"] == 61
    assert passed_over.report()["files with another ending (.99)"] == {"number": 1, "first": ["a.99"]}
    assert passed_over.sentences()[-2:] == [
        "100 files with another ending (.csv) (bad\\udcff.csv, bad\\udcff.csv, bad\\udcff.csv, ...)",
        "61 more of other kinds (a.0, a.1, a.10, ...)",
    ]


@pytest.mark.parametrize("status", [0, 403, 404, 500])
def test_a_server_of_files_that_does_not_answer_has_not_said_that_nothing_is_there(status: int) -> None:
    handler = type("Refusing", (BaseHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler.do_GET = handler.do_HEAD = lambda request: request.send_error(status)  # pyright: ignore[reportAttributeAccessIssue]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path = f"http://127.0.0.1:{server.server_address[1]}/rows.jsonl"
        if status:
            wanted = r"has no \.jsonl files" if status == 404 else rf"cannot be listed at .*{status}"
            with pytest.raises(BadInput, match=wanted):
                locate(corpus_of("jsonl", path), SUFFIXES)
        server.shutdown()
    if not status:
        with pytest.raises(BadInput, match=r"cannot be listed at .*Cannot connect"):
            locate(corpus_of("jsonl", path), SUFFIXES)
