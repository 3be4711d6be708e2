"""Signs of life of a long step: a bar on a terminal, plain lines elsewhere, with the rate and the time left."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

EVERY_S, BAR_EVERY_S = 10.0, 0.1
# A rate over less says nothing but how exact the clock is.
SHORTEST_FOR_RATE_S = 1.0

# Ends a line that on a terminal gives way to the one after it.
PASSING = "\r"
ERASE_LINE = "\x1b[2K"

T = TypeVar("T")


def duration(seconds: float) -> str:
    """45 -> "45s", 192 -> "3m12s", 11520 -> "3h12m"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def short(number: float) -> str:
    """12431 -> "12.4k", 412000 -> "412k", 3100000 -> "3.1M"."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.0f}{unit}" if number >= 100 * size else f"{number / size:.1f}{unit}"
    return f"{number:.0f}"


def report_progress(what: str) -> Callable[[int, int], None]:
    """A function of (done, in all) for code that only calls back; the last call, with both equal, ends the report.

    The work begins now, and not with the first call back, which may come when most of it is done.
    """
    progress: Progress | None = None
    started_s = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal progress
        if progress is None:
            progress = Progress(what, unit="", total=total, started_s=started_s).__enter__()
        progress.at(done)
        if done >= total:
            progress.close()

    return say


class Progress:
    """with Progress("encode", unit="images", total=5000) as progress: ... progress.at(done)

    what: names the step. unit: what is counted. total: how many there are, None where nobody knows before the end.
    every_s: seconds between two plain lines, at least. started_s: when the work began on the monotonic clock, where that is not
    the block's start. What the step prints itself goes above the bar.
    """

    def __init__(
        self, what: str, *, unit: str, total: int | None = None, every_s: float = EVERY_S, started_s: float | None = None
    ) -> None:
        self.what, self.unit, self.total, self.every_s, self._given_start_s = what, unit, total, every_s, started_s
        self._bar: RichProgress | None = None
        self._done, self._share, self._note, self._closed = 0, 0.0, "", False

    def __enter__(self) -> Self:
        self._said_s = time.monotonic()
        self._started_s = self._said_s if self._given_start_s is None else self._given_start_s
        if sys.stdout.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task(self.what, total=None, text="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def at(self, done: int, *, share: Callable[[], float] | None = None, note: str = "") -> None:
        """Say that `done` are finished. share: tells the share of the whole in 0..1 where `total` does not, 0 if unknown."""
        self._done, self._note = done, note
        now_s = time.monotonic()
        if now_s - self._said_s < (BAR_EVERY_S if self._bar is not None else self.every_s):
            return
        self._said_s = now_s
        self._share = share() if share else done / self.total if self.total else 0.0
        if self._bar is None:
            print(f"{self.what}: {self._line()}", flush=True)
        else:
            known = 1.0 if self._share > 0 else None
            self._bar.update(self._task, total=known, completed=min(self._share, 1.0), text=self._counts())

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The same items, each reported when the next one is asked for."""
        for done, item in enumerate(items, start=1):
            yield item
            self.at(done)

    def close(self) -> None:
        """The last line: how many in how long. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._bar is not None:
            self._bar.stop()
        spent = duration(time.monotonic() - self._started_s)
        print(f"{self.what}: {self._counts()} | {spent} in all", flush=True)

    def _line(self) -> str:
        spent_s = time.monotonic() - self._started_s
        if self._share <= 0:
            return f"{self._counts()} | {duration(spent_s)} so far"
        left_s = spent_s * (1 - min(self._share, 1.0)) / self._share
        return f"{self._counts()} | {self._share:.0%} | {duration(left_s)} left"

    def _counts(self) -> str:
        unit, of = f" {self.unit}" if self.unit else "", f"/{self.total}" if self.total else ""
        note = f" | {self._note}" if self._note else ""
        return f"{self._done}{of}{unit}{self._rate()}{note}"

    def _rate(self) -> str:
        spent_s = time.monotonic() - self._started_s
        if spent_s < SHORTEST_FOR_RATE_S:
            return ""
        rate = self._done / spent_s
        return f" | {short(rate) if rate >= 100 else f'{rate:.1f}'}/s"


class LinePrinter:
    """Prints another process' lines: on a terminal one that ends in PASSING stands until the next, elsewhere all stay."""

    def __init__(self) -> None:
        self._unended, self._stands, self._is_terminal = "", False, sys.stdout.isatty()

    def write(self, text: str) -> None:
        """Whatever came since the last call; a line that has not ended waits for its end."""
        *lines, self._unended = (self._unended + text).split("\n")
        for line in lines:
            self._print(line.removesuffix(PASSING), passes=line.endswith(PASSING))

    def close(self) -> None:
        """The line that stands stays. What is printed next goes below it."""
        self.write("\n" if self._unended else "")
        if self._stands:
            print(flush=True)
        self._stands = False

    def _print(self, line: str, *, passes: bool) -> None:
        if not self._is_terminal:
            return print(line, flush=True)
        # One that wraps could not be erased.
        shown = line[: shutil.get_terminal_size().columns - 1] if passes else line
        print(f"\r{ERASE_LINE}{shown}" if self._stands else shown, end="" if passes else "\n", flush=True)
        self._stands = passes


def _bar() -> RichProgress:
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
    return RichProgress(*columns, transient=True)
