"""A mutant against its tests: in a copy of the tree, under a time limit, and once only.

A result is kept for one mutated file and one group of test files as they are; when either changes, the mutant runs again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tests.mutants.forked import LIBRARIES, load, run_pytest
from tests.mutants.mapping import Groups

Outcome = Literal["killed", "timed out", "survived"]
# A mutant under which one test takes this many times as long as the whole group does without it has been noticed.
LIMIT_FACTOR = 5
# On top, for what else the machine may be doing.
LIMIT_SLACK_S = 30.0
# A test that hangs where no signal reaches it is ended from outside this much later.
HANGING_S = 120.0


class Mutant(NamedTuple):
    """name: unique in a list. what: the change, for people. module: the file. mutated: its whole text."""

    name: str
    what: str
    module: str
    mutated: str
    groups: Groups


class Result(NamedTuple):
    """noticed_by: the group of test files that noticed; () where none did."""

    mutant: Mutant
    outcome: Outcome
    noticed_by: tuple[str, ...]
    elapsed_s: float


class UnmutatedFailure(Exception):
    """The tests fail without any mutation, so that they could tell nothing."""


class FolderInUse(Exception):
    """Two runs in one folder would mutate under each other."""


class Laboratory:
    """The copy of the tree and the journal of results, both in `folder`. libraries: loaded once for all runs."""

    def __init__(self, root: Path, folder: Path, libraries: Sequence[str] = LIBRARIES) -> None:
        self.tree, self.journal, self.log = folder / "tree", folder / "results.jsonl", folder / "last.log"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(f"another run works in {folder}; name another --folder") from None
        copy_tree(root, self.tree)
        files = sorted(self.tree.rglob("*.py"))  # .venv is a link, which is not followed
        self._state = _digest(part for path in files for part in (str(path.relative_to(self.tree)).encode(), path.read_bytes()))
        self.known = _read(self.journal)
        load(libraries)

    def close(self) -> None:
        """Let another run use the folder."""
        self._lock.close()

    @property
    def test_files(self) -> set[str]:
        return {str(path.relative_to(self.tree)) for path in (self.tree / "tests").rglob("test_*.py")}

    def run(self, mutant: Mutant) -> Result:
        """Its groups one after the other, until one notices."""
        if not mutant.groups:
            raise UnmutatedFailure(f"{mutant.module} has no tests; name some in tests/mutants/mapping.py")
        elapsed_s = 0.0
        for group in mutant.groups:
            entry = self._of_group(mutant, group)
            elapsed_s += float(entry["elapsed_s"])
            if entry["outcome"] != "survived":
                return Result(mutant, entry["outcome"], group, elapsed_s)
        return Result(mutant, "survived", (), elapsed_s)

    def _of_group(self, mutant: Mutant, group: tuple[str, ...]) -> dict:
        key = self._key(mutant.module, mutant.mutated, group)
        if key not in self.known:
            limit_s = LIMIT_FACTOR * self._unmutated_s(group) + LIMIT_SLACK_S
            path = self.tree / mutant.module
            original = path.read_text()
            path.write_text(mutant.mutated)
            try:
                outcome, elapsed_s = self._pytest(group, limit_s)
            finally:
                path.write_text(original)
            self._remember(key, {"mutant": mutant.name, "outcome": outcome, "group": group, "elapsed_s": elapsed_s})
        return self.known[key]

    def _unmutated_s(self, group: tuple[str, ...]) -> float:
        """Seconds of the group's tests on the tree as it is; they must pass, and again after any change of the tree."""
        key = self._key("", self._state, group)
        if key not in self.known:
            outcome, elapsed_s = self._pytest(group, None)
            if outcome != "survived":
                raise UnmutatedFailure(f"{' '.join(group)} fail without a mutation; see {self.log}")
            self._remember(key, {"mutant": "", "outcome": outcome, "group": group, "elapsed_s": elapsed_s})
        return float(self.known[key]["elapsed_s"])

    def _pytest(self, group: tuple[str, ...], limit_s: float | None) -> tuple[Outcome, float]:
        """What became of the code as it is, and the seconds it took. limit_s: of one test."""
        temporary = self.tree.parent / "temporary"
        # Nobody reads the values in a failed assertion, and rewriting the tests for them takes longer than most run.
        options = ["-x", "-q", "--no-header", "--assert=plain", "-p", "no:cacheprovider", f"--basetemp={temporary}"]
        limit = [f"--timeout={limit_s:.0f}"] if limit_s else []
        started_s = time.monotonic()
        code = run_pytest(self.tree, [*options, *limit, *group], self.log, limit_s and limit_s + HANGING_S)
        elapsed_s = round(time.monotonic() - started_s, 1)
        shutil.rmtree(temporary, ignore_errors=True)
        late = code is None or re.search(r"^E?\s*Failed: Timeout", self.log.read_text(errors="replace"), re.MULTILINE)
        return "survived" if code == 0 else "timed out" if late else "killed", elapsed_s

    def _key(self, module: str, mutated: str, group: tuple[str, ...]) -> str:
        return _digest([f"{module}\0{mutated}".encode(), *(name.encode() + (self.tree / name).read_bytes() for name in group)])

    def _remember(self, key: str, entry: dict) -> None:
        self.known[key] = entry
        with self.journal.open("a") as journal:
            journal.write(json.dumps({"key": key} | entry) + "\n")


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def copy_tree(root: Path, tree: Path) -> None:
    """What git would commit under root, and a link to its .venv; files that are gone from root go from the copy."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, check=True
    )
    names = [name for name in listed.stdout.decode().split("\0") if name and (root / name).is_file()]
    kept = set(names)
    for path in tree.rglob("*") if tree.exists() else ():
        if path.is_file() and not path.is_symlink() and str(path.relative_to(tree)) not in kept:
            path.unlink()
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, tree / name)
    environment = tree / ".venv"
    if not environment.is_symlink() and (root / ".venv").exists():
        environment.symlink_to((root / ".venv").resolve())


def _read(journal: Path) -> dict[str, dict]:
    if not journal.exists():
        return {}
    # The last line of a killed run may be half a line.
    lines = [line for line in journal.read_text().split("\n") if line.endswith("}")]
    return {entry.pop("key"): entry for entry in map(json.loads, lines)}
