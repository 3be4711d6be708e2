"""The text that the demonstration reads: the Python reference and the library's docstrings, cut into passages.

Both come with the interpreter. The reference repeats whole sections, so every paragraph is kept once only, where it is
met first: no paragraph of the held-out text occurs in the training text.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from components.data.config import ProseConfig, SplitShares
from components.data.documents import Document, TextSegment
from components.data.splits import split_of
from core.errors import BadInput
from core.random import rank_of

# Folders of the library's source tree that hold tests, tools with data as code, or installed packages.
SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__", "pydoc_data", "encodings"}
)

LOWER_CASE = re.compile("[a-z ]")


class Passage(NamedTuple):
    """A passage of the prose."""

    key: str
    """Where it comes from and its number there."""
    text: str
    """Whole paragraphs of about passage_bytes."""


def read_prose(config: ProseConfig, shares: SplitShares, *, seed: int, source: str) -> Iterator[Document]:
    """Passages as documents with a split each, chosen by a hash, until each split has its bytes.

    Held-out passages beyond their room train.
    """
    passages = cut_passages([*reference_topics(), *docstrings()], config.passage_bytes)
    order = sorted(passages, key=lambda passage: rank_of(seed, passage.key))
    room = {"train": config.max_train_bytes, "validation": config.max_held_out_bytes, "test": config.max_held_out_bytes}
    for passage in order:
        size = len(passage.text.encode())
        split = split_of(passage.key, shares, seed)
        split = split if size <= room[split] else "train"
        if size <= room[split]:
            room[split] -= size
            yield Document(key=passage.key, source=source, split=split, segments=(TextSegment(passage.text),))


def reference_topics() -> Iterator[Passage]:
    """The sections of the Python reference that `help()` shows, whole, read from pydoc_data's source."""
    spec = importlib.util.find_spec("pydoc_data.topics")
    if spec is None or spec.origin is None:
        raise BadInput("this Python lacks pydoc_data.topics, which the python_prose corpus reads; install all of its library")
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for name, text in sorted(ast.literal_eval(node.value).items()):
                yield Passage(f"reference/{name}", text)


@cache
def docstrings() -> tuple[Passage, ...]:
    """The docstrings of each standard library module in source order; parsed only, never imported (some seconds)."""
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = (
        (f"library/{path.relative_to(library).with_suffix('').as_posix()}", _docstrings(path))
        for path in _python_files(library)
    )
    return tuple(Passage(key, text) for key, text in texts if text)


def cut_passages(texts: Iterable[Passage], passage_bytes: int) -> list[Passage]:
    """Cut texts at paragraph ends (long paragraphs at line ends) into passages, keeping each paragraph once.

    No passage has more than passage_bytes, symbols counting twice. Keys are the text's key and a running number.
    """
    seen: set[bytes] = set()
    passages: list[Passage] = []
    for key, text in texts:
        new = [paragraph for paragraph in _paragraphs(text, passage_bytes) if _is_new(paragraph, seen)]
        passages += [Passage(f"{key}#{number:04d}", passage) for number, passage in enumerate(_join(new, passage_bytes))]
    return passages


def normal_form(paragraph: str) -> str:
    """What makes two paragraphs the same: their words, whatever the case and the white space."""
    return " ".join(paragraph.lower().split())


def _is_new(paragraph: str, seen: set[bytes]) -> bool:
    digest = hashlib.sha256(normal_form(paragraph).encode()).digest()
    known = digest in seen
    seen.add(digest)
    return not known


def _paragraphs(text: str, largest_bytes: int) -> Iterator[str]:
    """Paragraphs without blank lines, indentation kept; one over the size is cut at line ends, then anywhere."""
    lines: list[str] = []
    for line in [*text.expandtabs().splitlines(), ""]:
        stripped = line.rstrip()
        if lines and (not stripped or _size("\n".join([*lines, stripped])) > largest_bytes):
            yield "\n".join(lines)
            lines = []
        if stripped:
            *whole, rest = _slices(stripped, largest_bytes)
            yield from whole
            lines.append(rest)


def _slices(line: str, largest_bytes: int) -> list[str]:
    if _size(line) <= largest_bytes:
        return [line]
    # Four bytes is the longest character, and each may count twice.
    step = max(1, largest_bytes // 8)
    return [line[start : start + step] for start in range(0, len(line), step)]


def _join(paragraphs: list[str], largest_bytes: int) -> Iterator[str]:
    passage = ""
    for paragraph in paragraphs:
        longer = f"{passage}\n\n{paragraph}" if passage else paragraph
        if passage and _size(longer) > largest_bytes:
            yield passage
            longer = paragraph
        passage = longer
    if passage:
        yield passage


def _size(text: str) -> int:
    """Bytes of UTF-8; all but lower case letters and spaces count twice, as code and tables make shorter tokens."""
    return 2 * len(text.encode()) - len(LOWER_CASE.findall(text))


def _python_files(library: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(library):
        # os.walk goes on with what is left in this list, in this order.
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        yield from (Path(folder) / name for name in sorted(files) if name.endswith(".py"))


def _docstrings(path: Path) -> str:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        # A few files of the library are templates or broken on purpose.
        return ""
    return "\n\n".join(text.strip() for text in _texts_in(tree) if text.strip())


def _texts_in(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield ast.get_docstring(node) or ""
        for inner in node.body:
            yield from _texts_in(inner)
