"""This project's model beside transfusion-pytorch's: one command, interleaved, on equal work with equal threads.

`python -m benchmarks.peer` writes benchmarks/results/peer.json and prints it as the last line. benchmarks/README.md says what
each figure means.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.command import keep, some_of
from benchmarks.peer.environment import peer_python
from benchmarks.peer.work import EXTRA, FIGURES, FULL, GROUPS, QUICK, Series
from benchmarks.peer.worker import Answer, Worker

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "peer.json"
PEER = ROOT / ".work" / "peer"
# Raw answers: group -> series -> one answer a round.
Raw = dict[str, dict[str, list[Answer]]]
# New processes of both sides, by name, for as long as the context lasts.
Start = Callable[[], AbstractContextManager[Mapping[str, Worker]]]


def main(argv: Sequence[str] | None = None) -> int:
    """argv: the command line's words, the process's own by default."""
    arguments = _parse(argv)
    names = arguments.only or [name for name in FIGURES if arguments.all or name not in EXTRA]
    groups = list(dict.fromkeys(FIGURES[name].group for name in names))
    flags = ["--threads", str(arguments.threads), *(["--quick"] if arguments.quick else [])]
    commands = {"ours": [sys.executable, "-m", "benchmarks.peer.ours", *flags]}
    if not arguments.ours_only:
        commands["theirs"] = [str(peer_python(PEER)), "-m", "benchmarks.peer.theirs", *flags]
    start = functools.partial(_workers, commands, arguments.threads)
    result = compare(start, groups, 1 if arguments.quick else arguments.rounds, arguments.threads)
    work = QUICK if arguments.quick else FULL
    result["work"] = json.loads(json.dumps(work._asdict()))
    out: Path = arguments.out or (PEER.parent / "peer-quick.json" if arguments.quick else RESULT)
    print(json.dumps(keep(result, out, merged)))
    return 0


def compare(start: Start, groups: Iterable[str], rounds: int, num_threads: int) -> dict[str, Any]:
    """Everything that peer.json holds but the work; a figure whose sides are not both there is null.

    Every group has processes of its own: what a training leaves behind in the allocator makes sampling after it faster.
    """
    with start() as sides:
        about = {side: worker.ask("describe") for side, worker in sides.items()}
        if "theirs" in about:
            about["ours_same_params"] = sides["ours"].ask("same_params", parameters=about["theirs"]["parameters"])
        layers = sides["ours"].ask("matmul", layers=True)
    raw: Raw = {}
    for group in groups:
        with start() as sides:
            if "theirs" in sides and "ours_same_params" in GROUPS[group]:
                sides["ours"].ask("same_params", parameters=about["theirs"]["parameters"])
            raw[group] = _measure(group, sides, rounds)
    return {
        **figures(raw),
        "parameters": {name: each["parameters"] for name, each in about.items()},
        "raw": {group: {name: spread(answers) for name, answers in each.items()} for group, each in raw.items()},
        "linear_layers_flops_per_second": layers,
        "sides": about,
        "machine": machine.describe(num_threads),
    }


def figures(raw: Raw) -> dict[str, float | None]:
    """Every figure whose group was measured."""
    for group, each in raw.items():
        evaluated = {name: answers[-1]["rows_evaluated"] for name, answers in each.items() if "rows_evaluated" in answers[-1]}
        if len(set(evaluated.values())) > 1:
            raise RuntimeError(f"{group}: unequal numbers of network evaluations, {evaluated}")
    return {
        name: _ratio(raw[figure.group], figure.above, figure.below, figure.unit)
        for name, figure in FIGURES.items()
        if figure.group in raw
    }


def spread(answers: Sequence[Answer]) -> Answer:
    """What the rounds gave: the seconds of each, the amounts of work, and the median of each amount a second."""
    amounts = {name: value for name, value in answers[-1].items() if name != "seconds"}
    return {
        "seconds": [round(answer["seconds"], 4) for answer in answers],
        **amounts,
        **{f"{name}_per_second": _per_second(answers, name) for name in amounts if name != "rows_evaluated"},
    }


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new figures among the old ones; old ones of another machine, other work or another model are dropped."""
    for key in ("machine", "work", "parameters"):
        if old.get(key) != new[key]:
            print(f"earlier figures are dropped: their {key} differs", file=sys.stderr)
            return dict(new)
    both = {**old, **new, "raw": {**old["raw"], **new["raw"]}}
    return {
        **{name: both[name] for name in FIGURES if name in both},
        **{name: both[name] for name in both if name not in FIGURES},
    }


def _measure(group: str, sides: Mapping[str, Worker], rounds: int) -> dict[str, list[Answer]]:
    """One answer a round of each series of the group whose side is there, in turn."""
    # The model of equal parameters exists only beside a peer.
    series = {
        name: each
        for name, each in GROUPS[group].items()
        if each.side in sides and ("theirs" in sides or name != "ours_same_params")
    }
    for each in series.values():
        if each.warm_up is not None:
            _ask(sides, each, each.warm_up)
    answers: dict[str, list[Answer]] = {name: [] for name in series}
    for number in range(rounds):
        for name, each in series.items():
            answer = _ask(sides, each, {})
            answers[name].append(answer)
            print(f"{group} {number + 1}/{rounds} {name}: {answer['seconds']:.3f} s", file=sys.stderr)
    return answers


def _ask(sides: Mapping[str, Worker], series: Series, instead: Mapping[str, Any]) -> Answer:
    return sides[series.side].ask(series.do, **{**series.question, **instead})


def _ratio(series: Mapping[str, Sequence[Answer]], above: str, below: Sequence[str], unit: str) -> float | None:
    if not {above, *below} <= series.keys():
        return None
    return round(_per_second(series[above], unit) / max(_per_second(series[each], unit) for each in below), 4)


def _per_second(answers: Sequence[Answer], unit: str) -> float:
    return statistics.median(answer[unit] / answer["seconds"] for answer in answers)


@contextmanager
def _workers(commands: Mapping[str, Sequence[str]], num_threads: int) -> Iterator[dict[str, Worker]]:
    threads = {name: str(num_threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    # Neither side is to spend time on progress bars or logging.
    quiet = {"TQDM_DISABLE": "1", "LOGURU_AUTOINIT": "0"}
    environment = {**os.environ, **threads, **quiet}
    with ExitStack() as stack:
        yield {
            side: stack.enter_context(Worker(command, folder=ROOT, environment=environment))
            for side, command in commands.items()
        }


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer", description=__doc__)
    figures_there = f"figures, separated by commas, of: {', '.join(FIGURES)}"
    parser.add_argument("--only", type=some_of(FIGURES, "figure"), help=figures_there)
    parser.add_argument("--all", action="store_true", help=f"also {', '.join(EXTRA)}")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each series (default: 5)")
    parser.add_argument("--threads", type=int, default=machine.num_cores(), help="of each side (default: the cores there are)")
    parser.add_argument("--quick", action="store_true", help="toy sizes, one round: whether it runs, not how fast")
    parser.add_argument("--ours-only", action="store_true", help="without the peer; its figures are null")
    parser.add_argument("--out", type=Path, help="the file to write (default: benchmarks/results/peer.json)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
