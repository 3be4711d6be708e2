"""Fault injection: one command injects every fault of a group, into our code and into the defaults beside it.

`python -m benchmarks.faults data` prints a line a fault, writes benchmarks/results/faults_data.json and prints that as the
last line; `tracking` does the same with an MLflow store that goes away, `training` with a training that is killed, cut off and
misled. Exit code 1: something of ours was not caught, lost, doubled or accepted. docs/data.md says what each fault of the data
is, outages.py those of tracking, docs/training.md those of training.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import machine
from benchmarks.faults.bytes import flipped_bytes, flipped_cache_objects
from benchmarks.faults.counts import ROOT, Counts, Found, Setting, total
from benchmarks.faults.files import bombs, corrupt_images, hostile_captions
from benchmarks.faults.gates import bad_latents, empty_corpora
from benchmarks.faults.killed_training import killed_training
from benchmarks.faults.locks import locks_and_zombies
from benchmarks.faults.outages import (
    back_early,
    back_late,
    killed_in_an_outage,
    killed_runs,
    locked_database,
    never_back,
    stopped_and_woken,
    stopped_to_the_end,
)
from benchmarks.faults.parquet import poisoned_parquet
from benchmarks.faults.repro import killed_stages
from benchmarks.faults.tars import cut_tars, duplicate_keys, hostile_members
from benchmarks.faults.training import command as training
from benchmarks.faults.workers import killed_workers, other_workers


class Fault(NamedTuple):
    title: str
    inject: Callable[[Setting], Found]


DATA = {
    "D1": Fault("cut tar", cut_tars),
    "D2": Fault("flipped bytes", flipped_bytes),
    "D3": Fault("flipped byte in DVC's cache", flipped_cache_objects),
    "D4": Fault("corrupt images", corrupt_images),
    "D5": Fault("bombs", bombs),
    "D6": Fault("hostile tar members", hostile_members),
    "D7": Fault("duplicate keys", duplicate_keys),
    "D8": Fault("hostile captions", hostile_captions),
    "D9": Fault("poisoned Parquet", poisoned_parquet),
    "D10": Fault("bad latents", bad_latents),
    "D11": Fault("empty corpora and null columns", empty_corpora),
    "D12": Fault("dvc repro killed", killed_stages),
    "D13": Fault("locks, zombies, broken stores", locks_and_zombies),
    "D14": Fault("other workers, batches, order", other_workers),
    "D15": Fault("encoding killed", killed_workers),
}
TRACKING = {
    "M1": Fault("server away, back early", back_early),
    "M2": Fault("server away, back late", back_late),
    "M3": Fault("server away for ever", never_back),
    "M4": Fault("server stopped and woken", stopped_and_woken),
    "M5": Fault("server stopped to the end", stopped_to_the_end),
    "M6": Fault("run killed in an outage", killed_in_an_outage),
    "M7": Fault("SQLite locked, read-only", locked_database),
    "M8": Fault("runs killed on SQLite", killed_runs),
    "M9": Fault("train killed on SQLite", killed_training),
}
RESULTS = Path(__file__).resolve().parents[1] / "results"
GROUPS: Mapping[str, Mapping[str, Fault]] = {"data": DATA, "tracking": TRACKING}


def main(argv: Sequence[str] | None = None) -> int:
    """argv: the command line's words, the process's own by default."""
    arguments = _parse(argv)
    known = training.FAULTS if arguments.group == "training" else GROUPS[arguments.group]
    names = arguments.only.split(",") if arguments.only else list(known)
    if unknown := [name for name in names if name not in known]:
        print(f"no fault is called {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    if arguments.group == "training":
        kept = RESULTS / "faults_training.json"
        return training.main(arguments, names, arguments.out or (ROOT / ".work" / kept.name if arguments.quick else kept))
    faults = GROUPS[arguments.group]
    found: dict[str, Found] = {}
    seconds: dict[str, float] = {}
    for name in names:
        started_s = time.monotonic()
        found[name] = inject(faults[name], seed=arguments.seed + int(name[1:]), quick=arguments.quick)
        seconds[name] = round(time.monotonic() - started_s, 1)
        print(line_of(name, faults[name], found[name]), flush=True)
        for missed in found[name].missed:
            print(f"{name} missed: {missed}", flush=True)
    result = report(faults, found, seconds) | {
        "quick": arguments.quick,
        "seed": arguments.seed,
        "machine": machine.describe(int(os.environ.get("OMP_NUM_THREADS", "0"))),
    }
    out: Path | None = arguments.out
    if out is None and len(names) == len(faults) and not arguments.quick:
        out = RESULTS / f"faults_{arguments.group}.json"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result), flush=True)
    return 0 if is_clean(total(each.ours for each in found.values())) and not any(f.missed for f in found.values()) else 1


def inject(fault: Fault, *, seed: int, quick: bool) -> Found:
    """One fault in a temporary folder of its own."""
    # What stages say of their progress is not for those who read the lines.
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, redirect_stdout(sys.stderr):
        return fault.inject(Setting(Path(folder).resolve(), quick, np.random.default_rng(seed)))


def line_of(name: str, fault: Fault, found: Found) -> str:
    """The fault's line, ours first and the defaults behind it."""
    defaults = "; ".join(f"{tool} {_short(counts)}" for tool, counts in found.defaults.items()) or "none apply"
    note = f" | {found.note}" if found.note else ""
    ours = found.ours
    return (
        f"{name} {fault.title} | injected {ours.injected} | caught {ours.caught} | rows lost {ours.rows_lost}"
        f" | rows doubled {ours.rows_doubled} | wrong bytes accepted {ours.wrong_bytes_accepted} | defaults: {defaults}{note}"
    )


def report(faults: Mapping[str, Fault], found: Mapping[str, Found], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Totals of ours, the same of the defaults, and both fault by fault."""
    each = {
        name: {
            "title": faults[name].title,
            **one.ours._asdict(),
            "defaults": {tool: counts._asdict() for tool, counts in one.defaults.items()},
            "note": one.note,
            "seconds": seconds[name],
        }
        for name, one in found.items()
    }
    beside = total(counts for one in found.values() for counts in one.defaults.values())
    return total(one.ours for one in found.values())._asdict() | {"defaults": beside._asdict(), "faults": each}


def is_clean(counts: Counts) -> bool:
    """Everything caught, nothing lost, doubled or accepted."""
    return counts == Counts(counts.injected, counts.injected)


def _short(counts: Counts) -> str:
    parts = [f"caught {counts.caught} of {counts.injected}"]
    parts += [f"{counts.rows_lost} rows lost"] if counts.rows_lost else []
    parts += [f"{counts.rows_doubled} doubled"] if counts.rows_doubled else []
    parts += [f"{counts.wrong_bytes_accepted} accepted"] if counts.wrong_bytes_accepted else []
    return ", ".join(parts)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("group", choices=[*GROUPS, "training"], help="which faults")
    parser.add_argument(
        "--only", metavar="D1,D2", help="these alone; of data and tracking nothing is kept in benchmarks/results then"
    )
    parser.add_argument("--quick", action="store_true", help="fewer injections; nothing is kept either")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="of the long run of training (default: 200)")
    parser.add_argument("--seed", type=int, default=17, help="of every draw (default: 17)")
    parser.add_argument("--out", type=Path, help="write the JSON here whatever was run")
    return parser.parse_args(argv)


if __name__ == "__main__":
    # Encoding compares bytes; spinning threads would only slow what runs beside.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(main())
