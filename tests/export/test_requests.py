"""Bad lines are set aside with number and reason; good ones stand; the journal survives a cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.batch import batches
from export.failure import ExportRefused
from export.predictions import append_journal, gather, read_journal, write_predictions
from export.requests import TASKS, read_requests

GOOD = {"id": "1", "task": "text_to_image", "prompt": "a red three"}
BAD = [
    (b"{not json", "not JSON"),
    (b"[1]", "not an object"),
    (b'{"task": "text", "prompt": "a"}', "id is missing"),
    (b'{"id": "a", "task": "sing", "prompt": "a"}', "not one of"),
    (b'{"id": "a", "task": "text"}', "prompt is missing"),
    (b'{"id": "a", "task": "text", "prompt": "  "}', "prompt is missing"),
    (b'{"id": 7, "task": "text", "prompt": "a"}', "id must be text"),
    (b'{"id": "a", "task": "text", "promt": "a"}', "unknown key 'promt'"),
    (b'{"id": "a", "task": "text", "prompt": "a", "image": "b.png"}', "no meaning"),
    (b'{"id": "a", "task": "image_to_image", "image": "b.png"}', "prompt is missing or empty; image_to_image needs it"),
    (b'{"id": "a", "task": "image_to_image", "prompt": "bluer"}', "image is missing or empty; image_to_image needs it"),
    (b'{"id": "a", "task": "image_to_image", "image": "../b.png", "prompt": "bluer"}', "below the folder"),
    (b'{"id": "a", "task": "image_to_text", "image": "../secret.png"}', "below the folder"),
    (b'{"id": "a", "task": "image_to_text", "image": "/etc/hostname"}', "below the folder"),
    (b'{"id": "a", "task": "text", "prompt": "\xff"}', "not UTF-8"),
    (b'{"id": "1", "task": "text", "prompt": "again"}', "occurs twice"),
    (b'{"id": "a", "task": "text", "prompt": "' + b"a" * 2**20 + b'"}', "bytes, more than"),
    (b"[" * 100_000, "not JSON"),
    (b'{"id": "a", "task": "text", "prom', "not JSON"),
]


def test_each_bad_line_alone_is_set_aside(tmp_path: Path) -> None:
    good = json.dumps(GOOD).encode()
    # A byte order mark, a blank line, and line ends of another system are no faults.
    lines = [b"\xef\xbb\xbf" + good + b"\r", b"", *[line for line, _ in BAD]]
    (tmp_path / "r.jsonl").write_bytes(b"\n".join(lines))
    read = read_requests(tmp_path / "r.jsonl")
    assert [line.id for line in read.good] == ["1"]
    assert [bad.line for bad in read.bad] == list(range(3, 3 + len(BAD)))
    for bad, (_, reason) in zip(read.bad, BAD, strict=True):
        assert reason in bad.reason


def test_every_task_is_read_with_all_that_it_is_made_of(tmp_path: Path) -> None:
    given = {"image": "images/b.png", "prompt": "bluer"}
    lines = [{"id": task, "task": task} | {key: given[key] for key in keys} for task, keys in TASKS.items()]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines)))
    read = read_requests(tmp_path / "r.jsonl")
    assert not read.bad
    assert [{key: value for key, value in line._asdict().items() if value and key != "line"} for line in read.good] == lines


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match=r"infer\.requests"):
        read_requests(tmp_path / "none.jsonl")


def test_batches_hold_one_task_and_every_line_once(tmp_path: Path) -> None:
    tasks = ["text", "text_to_image", "text", "text", "text_to_image", "text"]
    lines = [{"id": str(n), "task": task, "prompt": "a"} for n, task in enumerate(tasks)]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines)))
    items = list(batches(read_requests(tmp_path / "r.jsonl").good, 3))
    assert [len(item["lines"]) for item in items] == [3, 1, 2]
    assert all(len({line["task"] for line in item["lines"]}) == 1 for item in items)
    assert sorted(line["line"] for item in items for line in item["lines"]) == [1, 2, 3, 4, 5, 6]


def test_the_journal_survives_a_cut_at_every_byte(tmp_path: Path) -> None:
    records = [{"line": n, "id": str(n), "task": "text", "generated_text": "é" * n} for n in range(1, 5)]
    append_journal(tmp_path / "j", records[:2])
    append_journal(tmp_path / "j", records[2:])
    whole = (tmp_path / "j").read_bytes()
    assert read_journal(tmp_path / "j", tmp_path) == {record["line"]: record for record in records}
    for end in range(len(whole)):
        (tmp_path / "j").write_bytes(whole[:end])
        kept = read_journal(tmp_path / "j", tmp_path)
        assert all(record == records[line - 1] for line, record in kept.items())
        append_journal(tmp_path / "j", [record for record in records if record["line"] not in kept])
        assert read_journal(tmp_path / "j", tmp_path) == {record["line"]: record for record in records}


def test_a_journalled_picture_that_is_gone_is_drawn_again(tmp_path: Path) -> None:
    append_journal(tmp_path / "j", [{"line": 1, "id": "1", "task": "text_to_image", "generated_image": "images/000001.png"}])
    assert read_journal(tmp_path / "j", tmp_path) == {}


def test_every_line_ends_in_one_of_two_files(tmp_path: Path) -> None:
    lines = [json.dumps({"id": str(n), "task": "text", "prompt": "a"}) for n in range(3)]
    (tmp_path / "r.jsonl").write_text("\n".join([*lines, "nonsense"]))
    read = read_requests(tmp_path / "r.jsonl")
    records = {1: {"generated_text": "x"}, 2: {"error": "too long"}, 3: {"generated_text": "y"}}
    counts = write_predictions(tmp_path, gather(read, records))
    assert counts == {"results.jsonl": 2, "quarantine.jsonl": 2}
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    aside = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in results] == ["0", "2"]
    assert [(entry["line"], entry["id"]) for entry in aside] == [(2, "1"), (4, "")]
