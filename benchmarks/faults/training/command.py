"""`python -m benchmarks.faults training`: injects T1 to T13 and keeps what became of them in faults_training.json."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine
from benchmarks.command import keep
from benchmarks.faults.training.cluster import failing_workers, killed_drivers, lost_node
from benchmarks.faults.training.damage import damaged_checkpoints, moving_on
from benchmarks.faults.training.kills import killed_again_and_again, killed_trainers, other_numbers_of_workers, two_at_once
from benchmarks.faults.training.store import store_away
from benchmarks.faults.training.trials import Found, Inject, Lab
from benchmarks.faults.training.writing import full_disk, killed_while_writing


class Fault(NamedTuple):
    title: str
    inject: Inject


FAULTS = {
    "T1": Fault("trainer killed", killed_trainers),
    "T2": Fault("driver killed", killed_drivers),
    "T3": Fault("worker killed, stopped, stuck", failing_workers),
    "T4": Fault("killed inside a checkpoint's writing", killed_while_writing),
    "T5": Fault("disk full", full_disk),
    "T6": Fault("damaged checkpoints", damaged_checkpoints),
    "T8": Fault("other numbers of workers", other_numbers_of_workers),
    "T9": Fault("MLflow server away", store_away),
    "T11": Fault("two trainers at once", two_at_once),
    "T12": Fault("steps taken while a checkpoint is written", moving_on),
    "T13": Fault("one long run killed again and again", killed_again_and_again),
    "T14": Fault("node lost", lost_node),
}
# What is killed in which.
KILLS = ("T1", "T2", "T3", "T4", "T13")


def main(arguments: Namespace, names: list[str], out: Path) -> int:
    """Inject the faults of these names, and keep each one's result as it comes; exit code 1 where one was not survived."""
    about = {
        "quick": arguments.quick,
        "seed": arguments.seed,
        "machine": machine.describe(int(os.environ.get("OMP_NUM_THREADS", "0"))),
    }
    result, is_clean = dict[str, Any](), True
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        lab = Lab(Path(folder).resolve(), quick=arguments.quick, kills=arguments.kills, seed=arguments.seed)
        for name in names:
            entry = injected(name, lab)
            is_clean = is_clean and entry["survived"] == entry["injected"] and not entry["bits_of_difference"]
            result = keep(report({name: entry}) | about, out, merged)
    print(json.dumps(result), flush=True)
    return 0 if is_clean else 1


def injected(name: str, lab: Lab) -> dict[str, Any]:
    """One fault, its line printed; what is kept of it."""
    started_s = time.monotonic()
    with redirect_stdout(sys.stderr):
        found = FAULTS[name].inject(lab)
    print(line_of(name, found), flush=True)
    for missed in dict.fromkeys(trial.missed for trial in found.trials if trial.missed):
        print(f"{name} missed: {missed}", flush=True)
    about = {"title": FAULTS[name].title, "note": found.note, "seconds": round(time.monotonic() - started_s, 1)}
    return about | found.counts() | found.facts


def line_of(name: str, found: Found) -> str:
    """The fault's line."""
    counts = found.counts()
    recovery = "-" if counts["recovery_s"] is None else f"{counts['recovery_s']:g}"
    note = f" | {found.note}" if found.note else ""
    return (
        f"{name} {FAULTS[name].title} | injected {counts['injected']} | survived {counts['survived']}"
        f" | samples lost {counts['samples_lost']} | samples doubled {counts['samples_doubled']}"
        f" | bits of difference {counts['bits_of_difference']} | recovery s {recovery}{note}"
    )


def report(faults: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Totals over faults, and each."""
    killed = [faults[name] for name in KILLS if name in faults]
    totals: dict[str, Any] = {
        "kills_tried": sum(each["injected"] for each in killed),
        "kills_survived": sum(each["survived"] for each in killed),
    }
    totals |= {
        name: sum(each[name] for each in faults.values()) for name in ("bits_of_difference", "samples_lost", "samples_doubled")
    }
    totals |= {name: sum(each.get(name, 0) for each in faults.values()) for name in ("flipped_bytes", "flipped_bytes_found")}
    blocked = [each["outage_seconds_blocked"] for each in faults.values() if "outage_seconds_blocked" in each]
    return totals | {"outage_seconds_blocked": max(blocked, default=None), "faults": dict(faults)}


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new faults among the old ones of the same machine."""
    if old.get("machine") != new["machine"] or old.get("quick") != new["quick"]:
        return dict(new)
    faults = old["faults"] | new["faults"]
    return dict(new) | report({name: faults[name] for name in sorted(faults, key=lambda name: int(name[1:]))})
