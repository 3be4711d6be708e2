"""A long step says its rate and the time left, as a bar on a terminal and as lines elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.runtime.progress import ERASE_LINE, PASSING, LinePrinter, Progress, duration, report_progress, short

ROOT = Path(__file__).resolve().parents[3]

STEP = """
import time
from components.runtime.progress import Progress
with Progress("work", unit="rows", total=8, every_s=0.05) as progress:
    for item in progress.over(range(8)):
        time.sleep(0.03)
        if item == 4:
            print("something in between")
"""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (45, "45s"), (59.7, "1m00s"), (192, "3m12s"), (11520, "3h12m"), (90000, "25h00m")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(7.4, "7"), (999, "999"), (12431, "12.4k"), (412000, "412k"), (3.1e6, "3.1M")])
def test_short_numbers(number: float, text: str) -> None:
    assert short(number) == text


def test_plain_lines_have_count_rate_share_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("work", unit="rows", total=8, every_s=0.0, started_s=time.monotonic() - 4000) as progress:
        for done in range(1, 9):
            progress.at(done, note="1 set aside")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert re.fullmatch(r"work: 2/8 rows \| 0\.0/s \| 1 set aside \| 25% \| 3h20m left", lines[1])
    assert re.fullmatch(r"work: 8/8 rows \| 0\.0/s \| 1 set aside \| 1h0[67]m in all", lines[-1])


def test_the_rate_is_over_the_whole_work_and_none_is_said_of_a_moment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    say = report_progress("captions")
    now[0] += 8  # all of them are done when the first call comes
    say(256, 256)
    with Progress("shards", unit="shards", total=1) as progress:
        progress.at(1)
    assert capsys.readouterr().out.splitlines() == [
        "captions: 256/256 | 32.0/s | 8s in all",
        "shards: 1/1 shards | 0s in all",
    ]


def test_lines_are_seconds_apart_and_the_last_one_always_comes(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("work", unit="rows", every_s=60.0) as progress:
        for done in range(1000):
            progress.at(done)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_without_a_total_a_share_or_the_time_so_far(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("work", unit="rows", every_s=0.0) as progress:
        progress.at(5)
        progress.at(6, share=lambda: 0.5)
    unknown, known, _ = capsys.readouterr().out.splitlines()
    assert unknown.endswith("| 0s so far") and known.endswith("| 50% | 0s left")


def test_a_callback_reports_to_its_end_once(capsys: pytest.CaptureFixture[str]) -> None:
    say = report_progress("captions")
    for done in range(1, 5):
        say(done, 4)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_bar_on_a_terminal() -> None:
    shown = _on_terminal(STEP)
    assert "\u2501" in shown and "something in between" in shown
    assert "8/8 rows" in shown.splitlines()[-1] and shown.count("in all") == 1


# Lines as they come from a file: the second and third look end within a line.
LINES = [f"resumed\nstep 1{PASSING}\nst", "ep 2 is long", f"er{PASSING}\n", f"held out\nstep 3{PASSING}\n", "step 4"]


def test_lines_of_another_process_stay_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter()
    for text in LINES:
        printer.write(text)
    assert capsys.readouterr().out == "resumed\nstep 1\nstep 2 is longer\nheld out\nstep 3\n"
    printer.close()
    printer.close()
    assert capsys.readouterr().out == "step 4\n"


def test_on_a_terminal_a_passing_line_gives_way_to_the_next() -> None:
    # What a terminal's lines hold at last: it goes back to their beginning, and clears them.
    lines = [line.rsplit(ERASE_LINE, 1)[-1].strip("\r") for line in _printed_on_terminal(LINES[:-1]).split("\n")]
    assert lines == ["resumed", "held out", "step 3", "done", ""]
    # One that is wider than the terminal would leave its first part behind.
    wide = _printed_on_terminal(["x" * 500 + PASSING + "\n"])
    assert "x" * 119 in wide and "x" * 120 not in wide


def _printed_on_terminal(texts: list[str]) -> str:
    return _on_terminal(f"""
from components.runtime.progress import LinePrinter
printer = LinePrinter()
for text in {texts!r}:
    printer.write(text)
printer.close()
print("done")
""")


def _on_terminal(script: str) -> str:
    parent, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    process = subprocess.Popen([sys.executable, "-c", script], stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    shown = b""
    try:
        while data := os.read(parent, 4096):
            shown += data
    except OSError:
        # Linux says so when the last process of the terminal has ended.
        pass
    os.close(parent)
    assert process.wait() == 0, shown
    return shown.decode()
