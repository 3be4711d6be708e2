"""Set two or more evaluations beside each other: figures with paired intervals, and pictures from the same noise.

A table in the console, and a page that opens offline with every figure and the pictures. Each evaluation is compared with the
first one. docs/tracking.md says more.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from components.evaluation.differences import Difference, Evaluation, by_chance, differences, reasons
from components.evaluation.intervals import LEVEL
from components.evaluation.metrics import METRICS
from components.report.comparison import comparison_page
from core.files import digest, write_text
from pipelines import paths
from pipelines.evaluations import KINDS, evaluated
from pipelines.options import add_parameters
from pipelines.params import load
from pipelines.stage import exit_code

# Columns: of a log, and of a terminal at most.
WIDTH = 100
MOST_NAMED = 3
# A file's name has 255 bytes at most, and its partial one needs some of them.
LONGEST_NAME = 150
EXIT_CODES = "Exit codes: 0 done; 1 an evaluation is missing or cannot be read; 2 bad configuration; 130 interrupted."


def main() -> int:
    """Compare, print and write the page; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.compare", description=__doc__, epilog=EXIT_CODES)
    parser.add_argument("runs", nargs="+", metavar="RUN", help=f"two or more: {KINDS}")
    parser.add_argument("-o", "--output", type=Path, metavar="PATH", help="of the page (default: in .work/compare)")
    add_parameters(parser)
    options = parser.parse_args()
    if len(options.runs) < 2:
        parser.error("give two runs at least")
    return exit_code(
        "compare: ", lambda: compare(options.runs, load(options.params, options.set).register.name, options.output)
    )


def compare(runs: Sequence[str], name: str, output: Path | None = None) -> None:
    """name: of the registered model. output: of the page."""
    first, *others = (evaluated(run, name) for run in runs)
    found = [(other, differences(first, other)) for other in others]
    for other, each in found:
        print_differences(first, other, each)
    page = output or paths.WORK / "compare" / f"{_file_name(runs)}.html"
    write_text(page, comparison_page(first, found))
    print(f"every figure, and the pictures: {page}", flush=True)


def _file_name(runs: Sequence[str]) -> str:
    name = re.sub(r"[^A-Za-z0-9.@]+", "-", " ".join(runs))
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{digest(name)[:8]}"


def print_differences(first: Evaluation, other: Evaluation, found: Sequence[Difference]) -> None:
    """The figures that differ, but for curves, which the page has; and why some have no interval."""
    from rich.console import Console
    from rich.table import Table

    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    console = Console(width=min(WIDTH, columns), highlight=False, markup=False)
    for one in (first, other):
        console.print(f"{one.name}: {one.about}", soft_wrap=False)
    rows = Table(box=None, pad_edge=False, collapse_padding=True)
    rows.add_column(f"{_short(other.name)} less {_short(first.name)}", overflow="fold")
    for heading in (_short(first.name), _short(other.name), "difference", f"{LEVEL:.0%} of resamples"):
        rows.add_column(heading, justify="right", no_wrap=True)
    rows.add_column("")
    # Those of a curve have no key of their own in METRICS.
    differing = [each for each in found if each.key in METRICS and each.value != 0]
    for each in differing:
        ends = f"{each.interval[0]:+.2g} to {each.interval[1]:+.2g}" if each.interval else ""
        difference = "" if each.value is None else f"{each.value:+.3g}"
        rows.add_row(each.key, _number(each.first), _number(each.second), difference, ends, each.verdict)
    console.print(rows if differing else "No figure differs.")
    for line in notes(found):
        console.print(line)
    print()


def notes(found: Sequence[Difference]) -> list[str]:
    """What the table leaves out, what chance does, and why figures have no interval: a sentence each."""
    equal = [each.key for each in found if each.value == 0]
    said = [f"Equal in both: {_named(equal)}."] if equal else []
    if chance := by_chance(found):
        said.append(chance)
    differing = [each for each in found if each.value != 0]
    return said + [f"No interval for {_named(keys)}: {why}." for why, keys in reasons(differing).items()]


def _named(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
    return f"{', '.join(keys[:MOST_NAMED])}{more}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _short(name: str) -> str:
    return name if len(name) <= 9 else f"{name[:7]}.."


if __name__ == "__main__":
    sys.exit(main())
