"""T1, T8, T11, T13: trainers killed at random moments, in other numbers of workers than before, and two at once."""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.faults.training.curves import curve_of, largest_relative_difference, losses_of, retaken
from benchmarks.faults.training.tiny import Workers, finish, last_step
from benchmarks.faults.training.trials import Found, Lab, Trial
from components.training.transformer.run import TransformerRun

# A short run sees several epochs; checkpoints are every third step.
NUM_STEPS = 30
# Of a kill in a long run, how many steps after the last one at most; one in five comes before the run takes steps again.
MOST_STEPS, EARLY_SHARE, LONGEST_START_S = 6, 0.2, 1.0


def killed_trainers(lab: Lab) -> Found:
    """T1: SIGKILL at a random step of one worker and of two, there to both, to worker 0 or to worker 1 alone."""
    trials = []
    for number in range(lab.number(20, 2)):
        size = 1 + number % 2
        expected = lab.reference(size, max_steps=NUM_STEPS)
        run = lab.run(f"T1-{number}", max_steps=NUM_STEPS)
        workers = Workers(run, size, attempt=0)
        workers.wait_for_step(int(lab.generator.integers(1, NUM_STEPS - 2)))
        time.sleep(float(lab.generator.uniform(0, 0.05)))
        workers.kill([None, [0], [1]][number // 2 % 3] if size == 2 else None)
        at, seen, killed_s = last_step(run), losses_of(run), time.monotonic()
        again = Workers(run, size, attempt=1)
        again.wait_for_step(min(at + 1, NUM_STEPS))
        recovery_s = time.monotonic() - killed_s
        missed = again.said() if any(again.join()) else ""
        trials.append(lab.judged(run, expected, missed=missed, bits=retaken(expected.losses, seen), recovery_s=recovery_s))
    return Found(trials, note=f"{NUM_STEPS} steps of {lab.num_rows()} rows an epoch, 1 and 2 workers by turns")


def killed_again_and_again(lab: Lab) -> Found:
    """T13: one long run killed so many times, at random moments of steps, checkpoints and starts."""
    kills = lab.kills or lab.number(200, 4)
    num_steps = 4 * kills + 20
    expected = lab.reference(1, max_steps=num_steps)
    run = lab.run("T13", max_steps=num_steps)
    started_s, bits, recovered = time.monotonic(), 0, list[float]()
    done = 0
    while done < kills and last_step(run) < num_steps - MOST_STEPS:
        workers, at, begun_s = Workers(run, 1, attempt=done), last_step(run), time.monotonic()
        if lab.generator.random() < EARLY_SHARE:
            time.sleep(float(lab.generator.uniform(0, LONGEST_START_S)))
        else:
            workers.wait_for_step(at + 1)
            recovered.append(time.monotonic() - begun_s)
            workers.wait_for_step(at + int(lab.generator.integers(1, MOST_STEPS)))
            time.sleep(float(lab.generator.uniform(0, 0.05)))
        workers.kill()
        bits += retaken(expected.losses, losses_of(run))
        done += 1
    finish(run, 1, attempt=done)
    trial = lab.judged(run, expected, bits=bits, recovery_s=statistics.median(recovered))
    one, rest = Trial(trial.missed, recovery_s=trial.recovery_s), time.monotonic() - started_s
    facts = {"steps": num_steps, "seconds": round(rest, 1), "kills": done}
    return Found([trial, *[one] * (done - 1)], facts, f"one run of {num_steps} steps in {rest:.0f} s")


def other_numbers_of_workers(lab: Lab) -> Found:
    """T8: killed on two workers, then on one, then ended on two: the same rows, and losses that differ by rounding alone."""
    # In float32, and few: two sums of the same numbers in another order differ in their last bits, and steps make more of it.
    changes: dict[str, Any] = {"max_steps": 12, "precision": "float32"}
    expected, run = lab.reference(1, **changes), lab.run("T8", **changes)
    for attempt, (size, until) in enumerate(((2, 4), (1, 8))):
        workers = Workers(run, size, attempt)
        workers.wait_for_step(until)
        workers.kill()
    finish(run, 2, attempt=2)
    found = curve_of(run)
    apart = largest_relative_difference(expected.losses, found.losses)
    lost = sum(found.rows[step] != rows for step, rows in expected.rows.items())
    missed = f"losses are {apart:.1e} apart, and {lost} steps read other rows" if apart > 1e-5 or lost else ""
    return Found([Trial(missed, samples_lost=lost)], {"largest_relative_difference": apart}, f"losses {apart:.1e} apart")


def two_at_once(lab: Lab) -> Found:
    """T11: a second trainer of one run does nothing while there is a first one, and goes on where that is killed."""
    expected, run = lab.reference(1, max_steps=NUM_STEPS), lab.run("T11", max_steps=NUM_STEPS)
    first = Workers(run, 1, attempt=0)
    first.wait_for_step(2)
    second = Workers(run, 1, attempt=1)
    first.wait_for_step(NUM_STEPS // 2)
    first.kill()
    at, seen = last_step(run), losses_of(run)
    missed = second.said() if any(second.join()) else ""
    read = _first_step(run, attempt=1)
    if not missed and read < at - 2 * run.config.checkpoint_every_steps:
        missed = f"the second read the rows of step {read} while the first was at step {at}"
    return Found([lab.judged(run, expected, missed=missed, bits=retaken(expected.losses, seen))])


def _first_step(run: TransformerRun, attempt: int) -> int:
    """Of an attempt, the first step whose rows it read."""
    lines = (run.folder / "rows-0.log").read_text().splitlines()
    return min(int(line.split()[1]) for line in lines if int(line.split()[0]) == attempt)
