"""Bad lines are set aside with number and reason; good ones stand; the journal survives a cut."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
from pathlib import Path

import pytest

from core.errors import BadInput
from export.run.batch import MAX_TRIES, after_death, batches
from export.run.journal import ENGINE, SEEN, append_journal, engines_of, read_journal, unchanged
from export.run.picture_files import fingerprint
from export.run.predictions import MAX_NAMED, Predictions, gather, set_aside, write_predictions
from export.run.requests import TASKS, BadLine, Prompt, read_requests

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
    (b'{"id": "a", "task": "text", "prompt": "I like it \\ud83d"}', "prompt holds '\\ud83d' as character 11"),
    (b'{"id": "a\\udc00", "task": "text", "prompt": "b"}', "id holds '\\udc00' as character 2"),
    (b'{"id": "a", "task": "\\ud800", "prompt": "b"}', "task holds"),
    (b'{"id": "a", "task": "image_to_text", "image": "\\ud800.png"}', "image holds"),
    (b'{"id": "a", "task": "image_to_text", "image": "a\\u0000.png"}', "zero character"),
    (b'{"\\ud800": "a"}', "unknown key"),
    (b'{"id": "a", "task": "text", "prompt": NaN}', "prompt must be text, not float"),
    (b'{"id": "a", "task": "text", "prompt": true}', "prompt must be text, not bool"),
    (b'{"id": "a", "task": "text", "prompt": null}', "prompt must be text, not NoneType"),
    (b'{"id": "a", "task": ["text"], "prompt": "b"}', "task must be text, not list"),
    (b'{"id": {"a": 1}, "task": "text", "prompt": "b"}', "id must be text, not dict"),
    (b'{"id": ' + b"7" * 5000 + b', "task": "text", "prompt": "b"}', "not JSON"),
    (b'{"id": 1e999, "task": "text", "prompt": "b"}', "id must be text, not float"),
    (b'{"id": " \\t", "task": "text", "prompt": "b"}', "id is missing"),
    (b'{"id": "a", "id": "b", "task": "text", "prompt": "b"}', "key 'id' occurs twice"),
    (b'{"id": "a", "task": "text", "prompt": "b"} {}', "not JSON"),
    (b"\x00" * 40, "not JSON"),
    (b"7", "holds int, not an object"),
    (b'"text"', "holds str, not an object"),
]
# Odd, and as good as any other.
ODD = [
    *(
        {"id": id, "task": "text", "prompt": "a"}
        for id in ("a/b", "../a", "a\0b", "n" * 300, "é", "e\u0301", "ID", "id", ".", "CON")
    ),
    *(
        {"id": f"p{n}", "task": "text", "prompt": prompt}
        for n, prompt in enumerate(("a\0b", "<|boi|>", "\u202e", "\U0001f600", "a\u2028b"))
    ),
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
        assert "\n" not in bad.reason and len(bad.reason) < 300
        bad.reason.encode()
        bad.id.encode()
    # Where the id can be read the line is found by it.
    assert {bad.id for bad in read.bad} == {"", "1", "a"}


def test_odd_ids_and_prompts_are_requests_like_others(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ODD))
    read = read_requests(tmp_path / "r.jsonl")
    assert not read.bad
    assert [(line.id, line.prompt) for line in read.good] == [(line["id"], line["prompt"]) for line in ODD]
    # Every reader of lines finds one a request, whatever it takes for the end of one.
    write_predictions(tmp_path, Predictions([(line, {"generated_text": "x\u0085"}) for line in read.good], []))
    written = (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in written] == [line["id"] for line in ODD]
    assert all(json.loads(line)["generated_text"] == "x\u0085" for line in written)


def test_the_digest_is_of_the_bytes_that_were_read(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\n\n" + b"a" * (2**21 + 5) + b"\n{cut"
    (tmp_path / "r.jsonl").write_bytes(content)
    read = read_requests(tmp_path / "r.jsonl")
    assert read.sha256 == hashlib.sha256(content).hexdigest()
    assert [bad.line for bad in read.bad] == [3, 4]
    assert read.bad[0].reason == f"the line has {2**21 + 5} bytes, more than {2**20}"


LINES = [{"id": str(n), "task": "text", "prompt": "a"} for n in range(3)]
TEXT = "".join(json.dumps(line) + "\n" for line in LINES)
NO_LINES = {
    "gzip": (gzip.compress(TEXT.encode()), "is compressed (gzip)"),
    "bzip2": (bz2.compress(TEXT.encode()), "is compressed (bzip2)"),
    "xz": (lzma.compress(TEXT.encode()), "is compressed (xz)"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(40), "is compressed (zstd)"),
    "utf-16": (TEXT.encode("utf-16"), "is UTF-16"),
    "utf-16-le": (TEXT.encode("utf-16-le"), "is UTF-16"),
    "utf-16-be": (TEXT.encode("utf-16-be"), "is UTF-16"),
    "utf-32": (TEXT.encode("utf-32"), "UTF-32"),
    "array": (json.dumps(LINES).encode(), "is one JSON array"),
    "pretty array": (json.dumps(LINES, indent=1).encode(), "is one JSON array"),
    "pretty object": (json.dumps(LINES[0], indent=1).encode(), "spreads a request over several lines"),
    "carriage returns": (TEXT.replace("\n", "\r").encode(), "ends its lines in CR alone"),
    "nothing": (b"", "holds no usable request"),
    "blank": (b"\n \r\n\t\n", "holds no usable request"),
    "csv": (b"id,task,prompt\n1,text,a\n", "line 1: the line is not JSON"),
}


@pytest.mark.parametrize("name", NO_LINES)
def test_a_file_that_is_no_file_of_lines_is_refused_as_a_whole(tmp_path: Path, name: str) -> None:
    content, said = NO_LINES[name]
    (tmp_path / "r.jsonl").write_bytes(content)
    with pytest.raises(BadInput) as refused:
        read_requests(tmp_path / "r.jsonl")
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_every_task_is_read_with_all_that_it_is_made_of(tmp_path: Path) -> None:
    given = {"image": "images/b.png", "prompt": "bluer"}
    lines = [{"id": task, "task": task} | {key: given[key] for key in keys} for task, keys in TASKS.items()]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines)))
    read = read_requests(tmp_path / "r.jsonl")
    assert not read.bad
    assert [{key: value for key, value in line._asdict().items() if value and key != "line"} for line in read.good] == lines


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("none.jsonl", "No such file"), (".", "is a folder"), ("pipe", "not a file"), ("n" * 300, "too long")):
        with pytest.raises(BadInput, match=rf"{said}.*infer\.requests"):
            read_requests(tmp_path / name)


def test_batches_hold_one_task_and_every_line_once(tmp_path: Path) -> None:
    tasks = ["text", "text_to_image", "text", "text", "text_to_image", "text"]
    lines = [{"id": str(n), "task": task, "prompt": "a"} for n, task in enumerate(tasks)]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines)))
    items = list(batches(read_requests(tmp_path / "r.jsonl").good, 3))
    assert [len(item["lines"]) for item in items] == [3, 1, 2]
    assert all(len({line.task for line in item["lines"]}) == 1 for item in items)
    assert sorted(line.line for item in items for line in item["lines"]) == [1, 2, 3, 4, 5, 6]


def test_a_batch_whose_process_ended_is_tried_line_by_line_and_a_line_so_many_times(tmp_path: Path) -> None:
    lines = [Prompt(str(n), "text", "a", line=n) for n in range(1, 4)]
    (item,) = batches(lines, 3)
    singles, result = after_death(item, requests_folder=tmp_path)
    assert result is None
    assert [single["lines"] for single in singles] == [[line] for line in lines]
    again, tries = singles[1], 1
    while True:
        retried, result = after_death(again, requests_folder=tmp_path)
        if result:
            break
        (again,), tries = retried, tries + 1
    assert not retried
    assert tries == MAX_TRIES == 3
    (record,) = result["answers"]
    assert (record["line"], record["id"]) == (2, "2")
    assert "ended the process that answered it 3 times" in record["error"]


def test_a_request_given_up_is_not_tried_again_by_the_next_run_unless_its_picture_changed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one that ends the process")
    lines = [Prompt("1", "text", "a", line=1), Prompt("2", "image_to_text", image="a.png", line=2)]
    for item in batches(lines, 8):
        result, waiting = None, [item]
        while result is None:
            waiting, result = after_death(waiting[0], requests_folder=tmp_path)
        append_journal(tmp_path / "j", result["answers"])
    assert set(unchanged(read_journal(tmp_path / "j", tmp_path), lines, tmp_path)) == {1, 2}
    (tmp_path / "a.png").write_bytes(b"another")
    assert set(unchanged(read_journal(tmp_path / "j", tmp_path), lines, tmp_path)) == {1}


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


def test_a_journalled_picture_that_is_gone_or_cut_is_drawn_again(tmp_path: Path) -> None:
    record = {"line": 1, "id": "1", "task": "text_to_image", "generated_image": "1.png", "image_bytes": 4}
    append_journal(tmp_path / "j", [record])
    assert read_journal(tmp_path / "j", tmp_path) == {}
    (tmp_path / "1.png").write_bytes(b"cut")
    assert read_journal(tmp_path / "j", tmp_path) == {}
    (tmp_path / "1.png").write_bytes(b"full")
    assert read_journal(tmp_path / "j", tmp_path) == {1: record}


def test_a_journal_with_anything_else_in_it_is_read(tmp_path: Path) -> None:
    record = {"line": 3, "id": "3", "task": "text", "generated_text": "x"}
    (tmp_path / "j").write_bytes(
        b'\0\0\0\n7\n[]\nnull\n{"line": "3"}\n{}\n\xff\n' + json.dumps(record).encode() + b'\n{"line": 4'
    )
    assert read_journal(tmp_path / "j", tmp_path) == {3: record}


def test_the_engines_that_answered_are_named() -> None:
    given_up = {1: {"line": 1, "error": "ended the process"}}
    assert engines_of({}) == engines_of(given_up) == ""
    records = given_up | {line: {"line": line, ENGINE: name} for line, name in enumerate("cac", start=2)}
    assert engines_of(records) == "a, c"


def test_an_answer_about_a_picture_that_changed_since_is_made_again(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode())
    names = ["a", "b", "c", "missing", ""]
    lines = [Prompt(str(n), "image_to_text" if name else "text", "", name, n) for n, name in enumerate(names, start=1)]
    records = {line.line: {"line": line.line, SEEN: fingerprint(tmp_path, line.image_name)} for line in lines}
    assert unchanged(records, lines, tmp_path) == records
    (tmp_path / "b").write_bytes(b"another")
    (tmp_path / "c").unlink()
    (tmp_path / "missing").write_bytes(b"there now")
    assert set(unchanged(records, lines, tmp_path)) == {1, 5}


def test_of_many_lines_set_aside_the_first_are_named() -> None:
    bad = [BadLine(n, "", "no") for n in range(1, MAX_NAMED + 3)]
    said = set_aside(Path("r.jsonl"), Predictions([], bad)).splitlines()
    assert said[0] == "r.jsonl:1 set aside: no"
    assert (len(said), said[-1]) == (MAX_NAMED + 1, "2 more set aside; see quarantine.jsonl")
    assert len(set_aside(Path("r.jsonl"), Predictions([], bad[:MAX_NAMED])).splitlines()) == MAX_NAMED
    assert not set_aside(Path("r.jsonl"), Predictions([], []))


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
