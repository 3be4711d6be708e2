"""Mutations of the source, and which of them the tests do not notice.

python -m tests.mutants                         the listed mutations (tests/mutants/listed.py)
python -m tests.mutants --drawn 200 --seed 1    mutations drawn by Cosmic Ray, and the listed ones unless --only-drawn

Exit codes: 0 nothing survives (of drawn ones: at most 5%, beside those of tests/mutants/equivalent.py, which must survive);
1 something does, or a listed text has moved; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutants.drawing import SCOPE, Draw, draw
from tests.mutants.equivalent import reasons
from tests.mutants.listed import LISTED, MovedText, mutated
from tests.mutants.mapping import groups_of
from tests.mutants.noise import RULES
from tests.mutants.running import FolderInUse, Laboratory, Mutant, Result, UnmutatedFailure

ROOT = Path(__file__).resolve().parents[2]
MAX_SURVIVING_SHARE = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        laboratory = Laboratory(ROOT, options.folder.absolute())
    except FolderInUse as error:
        print(error, file=sys.stderr)
        return 2
    report, failed = [], False
    if not options.only_drawn:
        results, unusable = _run(laboratory, _listed(laboratory, options.match))
        report += [*_table("listed", results, unusable)]
        failed |= bool(unusable) or any(result.outcome == "survived" for result in results)
    if options.drawn:
        chosen = draw(laboratory.tree, options.scope, options.drawn, options.seed)
        results, unusable = _run(laboratory, _drawn(laboratory, chosen))
        report += [*_table(f"drawn, seed {options.seed}", results, unusable), *_left_out(chosen)]
        failed |= bool(unusable) or not few_survived(results)
    (options.folder / "report.md").write_text("\n".join(report) + "\n")
    print("\n".join(report))
    return int(failed)


def few_survived(results: Sequence[Result]) -> bool:
    """Whether few enough drawn changes survived, and every one said to be equivalent did."""
    real = [result for result in results if not _reason(result)]
    survived = sum(result.outcome == "survived" for result in real)
    noticed = [result for result in results if _reason(result) and result.outcome != "survived"]
    return not noticed and survived <= MAX_SURVIVING_SHARE * max(len(real), 1)


def _reason(result: Result) -> str:
    """Why a change is equivalent, "" where it is not known to be."""
    return reasons().get((result.mutant.module, result.mutant.what), "")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--match", default="", metavar="TEXT", help="only listed mutations whose name or file holds TEXT")
    parser.add_argument("--drawn", type=int, default=0, metavar="N", help="how many to draw")
    parser.add_argument("--seed", type=int, default=1, help="of the draw (default 1)")
    parser.add_argument("--only-drawn", action="store_true", help="leave the listed ones out")
    parser.add_argument("--scope", nargs="+", default=SCOPE, metavar="PATH", help="folders or files to draw from")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".work/mutants", help="copy of the tree, results, report (default: .work/mutants)"
    )
    return parser.parse_args(arguments)


def _listed(laboratory: Laboratory, match: str) -> Iterator[Mutant | MovedText]:
    for entry in LISTED:
        if match in entry.name or match in entry.module:
            groups = (entry.tests,) if entry.tests else groups_of(entry.module, laboratory.test_files)
            try:
                yield Mutant(entry.name, f"{entry.old} -> {entry.new}", entry.module, mutated(laboratory.tree, entry), groups)
            except MovedText as error:
                yield error


def _drawn(laboratory: Laboratory, chosen: Draw) -> Iterator[Mutant]:
    """Folder by folder, as SCOPE has them: what changes most comes last."""
    order = {one.module: number for number, folder in enumerate(SCOPE) for one in chosen.drawn if one.module.startswith(folder)}
    for one in sorted(chosen.drawn, key=lambda one: (order.get(one.module, len(SCOPE)), one.module, one.line, one.operator)):
        name = f"{one.module}:{one.line} {one.operator}"
        yield Mutant(name, one.what, one.module, one.mutated, groups_of(one.module, laboratory.test_files))


def _run(laboratory: Laboratory, mutants: Iterator[Mutant | MovedText] | Iterator[Mutant]) -> tuple[list[Result], list[str]]:
    """Results, and what could not be tried with the reason."""
    results: list[Result] = []
    unusable: list[str] = []
    for mutant in mutants:
        started_s = time.monotonic()
        try:
            if isinstance(mutant, MovedText):
                raise mutant
            results.append(laboratory.run(mutant))
        except (MovedText, UnmutatedFailure, OSError) as error:
            unusable.append(str(error))
            _say(f"NOT TRIED {error}")
            continue
        spent = time.monotonic() - started_s
        _say(f"{results[-1].outcome:9} {mutant.name} | {mutant.what} ({spent:.0f} s)")
    return results, unusable


def _table(heading: str, results: Sequence[Result], unusable: Sequence[str]) -> Iterator[str]:
    outcomes = Counter(result.outcome for result in results)
    equivalent = sum(bool(_reason(result)) for result in results)
    yield f"\n## {heading}\n"
    counts = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in ("killed", "timed out", "survived"))
    yield f"{len(results)} tried: {counts}; {equivalent} of them equivalent; {len(unusable)} not tried.\n"
    yield "| outcome | mutation | change | noticed by, or why it need not be | s |\n|---|---|---|---|---|"
    for result in sorted(results, key=lambda result: result.outcome, reverse=True):
        what = " ".join(result.mutant.what.replace("|", "\\|").split())
        name = result.mutant.name if ":" in result.mutant.name else f"{result.mutant.name} ({result.mutant.module})"
        noticed_by = " ".join(result.noticed_by) or _reason(result)
        yield f"| {result.outcome} | {name} | `{what}` | {noticed_by} | {result.elapsed_s:.0f} |"
    yield from (f"| not tried | | {reason} | | |" for reason in unusable)


def _left_out(chosen: Draw) -> Iterator[str]:
    yield f"\n{sum(chosen.left_out.values())} places came up before the last of the {len(chosen.drawn)} and were left out:\n"
    yield from (f"- {number} {rule}: {RULES[rule]}" for rule, number in chosen.left_out.most_common())


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
