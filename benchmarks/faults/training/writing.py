"""T4, T5: killed inside the writing of a checkpoint, and with a full disk there."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from benchmarks.faults.training.tiny import Workers, finish
from benchmarks.faults.training.traps import Trap, noted
from benchmarks.faults.training.trials import Found, Lab, Trial
from components.training.transformer.run import TransformerRun
from core.errors import BadInput
from core.manifest import read_manifest

NUM_STEPS = 15
# Every third step: the third checkpoint is the first that removes one.
SECOND, THIRD, REMOVED = "step-00000006", 9, "step-00000003"


def killed_while_writing(lab: Lab) -> Found:
    """T4: killed before, inside and after each of the parts of a checkpoint's writing and of the removal of an older one."""
    changes, largest = _changes_of_the_third(lab)
    num_points = lab.number(12, 3)
    inside = [Trap("cut", changes[0][0], share * largest // 100) for share in ((20, 80) if num_points > 3 else (50,))]
    chosen = _spread(changes, num_points - len(inside))
    traps = [(what, Trap("kill", at)) for at, what in chosen] + [("inside the largest file", trap) for trap in inside]
    trials = [_killed_at(lab, number, what, trap) for number, (what, trap) in enumerate(traps)]
    return Found(trials, {"points": [what for what, _ in traps]}, f"{len(changes)} changes of files in a checkpoint's writing")


def _killed_at(lab: Lab, number: int, what: str, trap: Trap) -> Trial:
    expected, run = lab.reference(1, max_steps=NUM_STEPS), lab.run(f"T4-{number}", max_steps=NUM_STEPS)
    (code,) = Workers(run, 1, 0, trap).join()
    if code not in (-signal.SIGKILL, -signal.SIGXFSZ):
        return Trial(f"{what}: nothing was injected, it ended with {code}")
    killed_s, whole = time.monotonic(), _whole(run)
    again = Workers(run, 1, attempt=1)
    again.wait_for_step(THIRD + 1)
    recovery_s = time.monotonic() - killed_s
    missed = again.said() if any(again.join()) else ""
    resumed = [line for line in run.lines.read_text().splitlines() if line.startswith("resumed from step")]
    if not whole or not resumed or int(resumed[0].split()[3]) < THIRD - run.config.checkpoint_every_steps:
        missed = missed or f"{what}: {len(whole)} whole checkpoints, {resumed}"
    return lab.judged(run, expected, missed=missed, recovery_s=recovery_s)


def full_disk(lab: Lab) -> Found:
    """T5: no file may grow beyond a size, in a checkpoint (no room, almost room) and in the finished model."""
    changes, largest = _changes_of_the_third(lab)
    finished = [number for number, (_, path) in enumerate(noted(_noted(lab))) if "/finished" in path]
    traps = {
        "checkpoint, no room": Trap("full", changes[0][0], largest // 10),
        "checkpoint, little room": Trap("full", changes[0][0], largest - 1),
        "finished model": Trap("full", finished[0], largest // 2),
    }
    return Found([_full_at(lab, number, what, trap) for number, (what, trap) in enumerate(traps.items())])


def _full_at(lab: Lab, number: int, what: str, trap: Trap) -> Trial:
    expected, run = lab.reference(1, max_steps=NUM_STEPS), lab.run(f"T5-{number}", max_steps=NUM_STEPS)
    (code,) = Workers(run, 1, 0, trap).join()
    said = (run.folder / "said-0.log").read_text()
    missed = "" if code == 1 and "File too large" in said else f"{what}: ended with {code}: {said[-300:]}"
    bad = sorted(set(_all(run)) - set(_whole(run)))
    if bad or (run.finished.exists() and not run.is_finished("finished") and code == 0):
        missed = missed or f"{what}: {bad} are not whole"
    finish(run, 1, attempt=1)
    return lab.judged(run, expected, missed=missed)


def _noted(lab: Lab) -> TransformerRun:
    """An undisturbed run whose changes of files are listed."""
    run = lab.run("noted", max_steps=NUM_STEPS)
    if not run.is_finished("finished"):
        Workers(run, 1, 0, Trap("note")).join()
    return run


def _changes_of_the_third(lab: Lab) -> tuple[list[tuple[int, str]], int]:
    """The numbers of the changes and what they are, and the size of the largest file in bytes."""
    run = _noted(lab)
    listed = list(noted(run))
    first = 1 + max(at for at, (event, path) in enumerate(listed) if event == "os.rename" and path.endswith(SECOND))
    last = max(at for at, (_, path) in enumerate(listed) if REMOVED in path)
    found = [(at, f"{event} {Path(path).name}") for at, (event, path) in enumerate(listed) if first <= at <= last]
    return found, max(path.stat().st_size for path in _all(run)[0].iterdir())


def _spread(changes: list[tuple[int, str]], number: int) -> list[tuple[int, str]]:
    """So many of them, the first and the last among them; all, again from the first, where there are fewer."""
    return [changes[round(place * (len(changes) - 1) / max(1, number - 1))] for place in range(number)]


def _all(run: TransformerRun) -> list[Path]:
    return sorted(run.store.glob("step-*"))


def _whole(run: TransformerRun) -> list[Path]:
    """The checkpoints whose bytes are right."""
    found = []
    for folder in _all(run):
        try:
            read_manifest(folder, kind="checkpoint")
        except BadInput:
            continue
        found.append(folder)
    return found
