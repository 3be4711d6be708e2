"""How often each item of work was begun, counted in files, because the process that begins an item may end in it."""

from __future__ import annotations

from pathlib import Path

# How often an item may end the process it is in. Not once, for a process may be ended by what is no item's fault: another
# program that takes the memory, a machine that is taken away.
MAX_TRIES = 3


class Tries:
    """One file an item, with a byte for each try that was begun and has not ended.

    folder: exists, and every process of the pool sees it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, name: str) -> int:
        """Count a try of `name`; how many were begun, this one too, since the last that ended."""
        with (self.folder / name).open("ab") as file:
            file.write(b".")
            file.flush()
            return file.tell()

    def end(self, name: str) -> None:
        """The process outlived its try, whatever came of it."""
        (self.folder / name).unlink(missing_ok=True)
