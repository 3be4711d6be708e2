"""The names that a gate sets aside come back from its file as they were, whatever they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.data.quarantine import Quarantined, read_keys, write_quarantine
from core.errors import BadInput

HOSTILE = ["../x", "/etc/passwd", "a\nb", "a\u2028b\x1c", '"}', "n" * 300, "\u202egnp.x", "a/b#3", " ", "<|eos|>"]


def test_any_key_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    write_quarantine(path, [Quarantined(key, f"because of\n{key}") for key in HOSTILE])
    assert read_keys(path) == set(HOSTILE)
    assert path.read_bytes().count(b"\n") == len(HOSTILE)
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_set_aside_is_an_empty_file(tmp_path: Path) -> None:
    write_quarantine(tmp_path / "none.jsonl", [])
    assert read_keys(tmp_path / "none.jsonl") == frozenset()


@pytest.mark.parametrize("content", [b"not JSON\n", b"[]\n", b'{"reason": "x"}\n', b"\xff\n", b'{"key": ["a"]}\n'])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"broken\.jsonl is not a quarantine file"):
        read_keys(path)
    with pytest.raises(BadInput, match=r"missing\.jsonl is missing"):
        read_keys(tmp_path / "missing.jsonl")
