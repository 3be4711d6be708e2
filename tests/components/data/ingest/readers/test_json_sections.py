"""A JSON file of any size is read entry by entry as json.loads reads it whole, wherever a chunk of it ends."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import pytest

from components.data.ingest.readers import json_sections as module
from components.data.ingest.readers.json_sections import json_sections
from core.errors import BadInput


def random_value(random_: random.Random, depth: int) -> Any:
    scalars = [None, True, 1, -12.5e3, 123456789012345678901, "", 'a "quoted" \\ {[]}', "\u00e9\U0001f600\n", "x" * 40]
    kind = random_.randrange(3 if depth else 1)
    if kind == 0:
        return random_.choice(scalars)
    values = [random_value(random_, depth - 1) for _ in range(random_.randrange(4))]
    return values if kind == 1 else {f"k{n}": value for n, value in enumerate(values)}


def entries(data: bytes) -> list[tuple[str, Any]]:
    return list(json_sections(io.BytesIO(data), "a.json"))


@pytest.mark.parametrize("chunk_bytes", [1, 2, 7, 64, 2**20])
def test_same_as_the_whole_file_at_once(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk_bytes)
    for seed in range(40):
        random_ = random.Random(seed)
        whole = {f"section {n}": random_value(random_, 3) for n in range(random_.randrange(5))}
        expected = [(key, entry) for key, value in whole.items() if isinstance(value, list) for entry in value]
        for data in (json.dumps(whole), json.dumps(whole, indent=1, ensure_ascii=False), "\ufeff" + json.dumps(whole) + "\n "):
            assert entries(data.encode()) == expected, f"seed {seed}"


def test_bytes_that_are_no_utf8_stay_in_their_entry() -> None:
    assert entries(b'{"a": ["x\xffy", "\xc3\xa9"]}') == [("a", "x\udcffy"), ("a", "\u00e9")]


def test_every_cut_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 8)
    data = json.dumps({"info": {"n": 1}, "images": [{"id": 1}, {"id": 23}], "annotations": []}).encode()
    for end in range(len(data)):
        with pytest.raises(BadInput, match=r"a\.json"):
            entries(data[:end])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b'{"a": [1,]}',
        b'{"a": [1 2]}',
        b'{"a" [1]}',
        b'{"a": [}',
        b'{"a": []} {}',
        b'{"a": [{"b": 1, "b": 2}]}',
    ],
)
def test_what_is_no_object_of_json_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match=r"a\.json"):
        entries(data)


def test_an_entry_too_long_to_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 64)
    monkeypatch.setattr(module, "MAX_ENTRY_CHARS", 1000)
    with pytest.raises(BadInput, match=r"a\.json"):
        entries(b'{"a": ["' + b"x" * 5000)
