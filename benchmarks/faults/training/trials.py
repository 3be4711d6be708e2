"""What every injected fault of training gives, and the place where it is injected."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.faults.training.curves import Curve, curve_of, difference, whole_epochs
from benchmarks.faults.training.tiny import finish, tiny_project, tiny_run
from components.training.transformer.run import TransformerRun


class Trial(NamedTuple):
    """One injection. missed: why it was not survived, "" where it was. recovery_s: until the run was further than before."""

    missed: str = ""
    samples_lost: int = 0
    samples_doubled: int = 0
    bits: int = 0
    recovery_s: float | None = None


class Found(NamedTuple):
    """What a fault did. facts: figures to keep beside the counts. note: one to print with them."""

    trials: Sequence[Trial]
    facts: dict[str, Any] = {}  # noqa: RUF012, of a NamedTuple, and nobody changes it
    note: str = ""

    def counts(self) -> dict[str, Any]:
        """The sums, by their names in the results."""
        trials, recovered = self.trials, [each.recovery_s for each in self.trials if each.recovery_s is not None]
        return {
            "injected": len(trials),
            "survived": sum(not each.missed for each in trials),
            "samples_lost": sum(each.samples_lost for each in trials),
            "samples_doubled": sum(each.samples_doubled for each in trials),
            "bits_of_difference": sum(each.bits for each in trials),
            "recovery_s": round(statistics.median(recovered), 2) if recovered else None,
        }


class Lab:
    """Where faults are injected: one project for all, a run for each trial.

    folder: empty, its own. quick: fewer injections. kills: of the long run, 0: as many as it has.
    """

    def __init__(self, folder: Path, *, quick: bool, kills: int, seed: int) -> None:
        self.folder, self.quick, self.kills, self.seed = folder, quick, kills, seed
        self.generator = np.random.default_rng(seed)
        self._project: Path | None = None
        self._references: dict[tuple[int, str], Curve] = {}

    def number(self, full: int, quick: int) -> int:
        """Of injections."""
        return quick if self.quick else full

    @property
    def project(self) -> Path:
        """Made when it is first asked for."""
        if self._project is None:
            with redirect_stdout(sys.stderr):
                self._project = tiny_project(self.folder / "project")
        return self._project

    def run(self, name: str, **changes: Any) -> TransformerRun:
        """A run, new or begun. changes: of its configuration."""
        return tiny_run(self.project, name, **changes)

    def reference(self, size: int, **changes: Any) -> Curve:
        """The course of an undisturbed run on `size` workers: sums of two workers have other last bits than those of one."""
        key = (size, repr(sorted(changes.items())))
        if key not in self._references:
            run = self.run(f"undisturbed-{len(self._references)}", **changes)
            finish(run, size, attempt=0)
            self._references[key] = curve_of(run)
        return self._references[key]

    def num_rows(self) -> int:
        """Of the training split: an epoch."""
        from components.data.loader import PackedRows

        return PackedRows(self.project / "data/latents", "train", self.project / "data/quarantine/latents.jsonl").num_rows

    def judged(
        self, run: TransformerRun, expected: Curve, *, missed: str = "", bits: int = 0, recovery_s: float | None = None
    ) -> Trial:
        """A run that has ended against its undisturbed course. bits: in which reports before its kills differed from it."""
        found = curve_of(run)
        differs = difference(expected, found)
        epochs = whole_epochs(found.rows, self.num_rows())
        lost, doubled = max(differs.samples_lost, epochs[0]), max(differs.samples_doubled, epochs[1])
        if bits + differs.bits or lost or doubled:
            missed = missed or f"{run.folder.name}: {bits + differs.bits} bits differ, {lost} samples lost, {doubled} doubled"
        return Trial(missed, lost, doubled, bits + differs.bits, recovery_s)


Inject = Callable[[Lab], Found]
