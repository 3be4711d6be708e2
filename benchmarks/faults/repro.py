"""A killed `dvc repro`. D12: SIGKILL in every stage of the data.

A small real DVC project in a temporary folder runs this repository's own stages, with the demonstration's corpora made tiny.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.faults.bytes import dvc_environment, run_dvc
from benchmarks.faults.counts import ROOT, Counts, Found, Setting, Trial, counted, misses

# An autoencoder of twelve steps, and gates that its latents get through.
TWELVE_STEPS: dict[str, Any] = {
    "validate.latents.max_std": 50.0,
    "validate.latents.min_std": 0.0,
    "validate.latents.max_abs_mean": 50.0,
    "validate.latents.max_abs_overall_mean": 50.0,
    "validate.latents.min_overall_std": 0.0,
    "validate.latents.max_overall_std": 50.0,
    "autoencoder.max_steps": 12,
    "autoencoder.preset": "tiny",
    "autoencoder.min_psnr_db": 1.0,
}
# Everything small.
TINY: dict[str, Any] = TWELVE_STEPS | {
    "ingest.vocab_size": 600,
    "ingest.documents_per_file": 64,
    "ingest.scenes.num_train": 120,
    "ingest.scenes.num_validation": 24,
    "ingest.scenes.num_test": 24,
    "ingest.prose.max_train_bytes": 40_000,
    "ingest.prose.max_held_out_bytes": 6_000,
    "validate.latents.min_packing_fill": 0.5,
    "autoencoder.checkpoint_every_steps": 4,
}
STAGES = ("ingest", "validate@documents", "autoencoder", "encode", "validate@latents")
SHARES = (0.15, 0.35, 0.5, 0.65, 0.8)
BUSY = "runs in this folder"
PLAIN_STAGE = """
import pathlib, time
for number in range(30):
    path = pathlib.Path("out/rows.txt")
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(f"{number}\\n")
    time.sleep(0.1)
"""


class Ended(NamedTuple):
    """code: None where it was killed. said: both its streams."""

    code: int | None
    said: str


def killed_stages(setting: Setting) -> Found:
    """D12: `dvc repro` of each stage killed at five points, one after the other, then run to its end."""
    work = project(setting.folder / "project")
    ours: list[Trial] = []
    for name in STAGES[:1] if setting.quick else STAGES:
        started_s = time.monotonic()
        assert repro(work, name).code == 0, f"{name} does not run undisturbed"
        takes_s, reference, rows = time.monotonic() - started_s, digests(work), _num_rows(work)
        kills = 0
        for number, share in enumerate(SHARES):
            ended = repro(work, name, kill_after_s=share * takes_s, with_children=number % 2 == 1)
            kills += ended.code is None
        assert kills, f"{name} ended before every kill: nothing was injected"
        ended = repro_when_free(work, name)
        after = digests(work)
        differing = sorted(path for path in reference.keys() | after.keys() if reference.get(path) != after.get(path))
        problem = ended.said[-400:] if ended.code else ", ".join(differing[:3])
        difference = _num_rows(work) - rows
        missed = f"{name} after {kills} kills: {problem}" if problem else ""
        one = Trial(missed, rows_lost=max(0, -difference), rows_doubled=max(0, difference), wrong_bytes=int(bool(differing)))
        ours += [one, *[Trial(missed)] * (kills - 1)]
    plain = _plain(setting.folder / "plain", kills=1 if setting.quick else 5)
    return Found(counted(ours), {"dvc with a plain stage": plain}, misses(ours))


def project(work: Path) -> Path:
    """A DVC project of the data's stages; their code is this repository's."""
    from ruamel.yaml import YAML

    yaml = YAML()
    work.mkdir(parents=True)
    graph = yaml.load((ROOT / "dvc.yaml").read_text())
    stages = {name: graph["stages"][name] for name in ("inputs", "ingest", "validate", "autoencoder", "encode")}
    for stage in stages.values():
        inner = stage.get("do", stage)
        inner["deps"] = [dep for dep in inner.get("deps", []) if not str(dep).endswith(".py")]
    yaml.dump({"stages": stages}, work / "dvc.yaml")
    shutil.copyfile(ROOT / "params.yaml", work / "params.yaml")
    set_params(work / "params.yaml", TINY)
    run_dvc(work, "init", "--no-scm", "-q")
    return work


def set_params(path: Path, values: Mapping[str, Any]) -> None:
    """Write values into a params.yaml, by the dotted names of leaves that are there."""
    from ruamel.yaml import YAML

    yaml = YAML()
    tree = yaml.load(path.read_text())
    for dotted, value in values.items():
        *parents, leaf = dotted.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        assert leaf in node, dotted
        node[leaf] = value
    yaml.dump(tree, path)


def digests(work: Path) -> dict[str, str]:
    """Every file that the stages publish; reports that hold times are left out."""
    folders = ("data", "artifacts", "reports/validate")
    paths = sorted(path for folder in folders for path in (work / folder).rglob("*") if path.is_file())
    return {
        str(path.relative_to(work)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        # No reader sees what begins with a dot: what a killed writer leaves has such a name.
        if "data_docs" not in path.parts and not path.name.startswith(".")
    }


def repro(work: Path, name: str, *, kill_after_s: float | None = None, with_children: bool = False) -> Ended:
    """`dvc repro` of one stage, whatever dvc.lock says; killed after so many seconds, alone or with what it started."""
    import psutil

    with (work.parent / "repro.log").open("w+") as log:
        command = [sys.executable, "-m", "dvc", "repro", "-s", "-f", name]
        process = subprocess.Popen(command, cwd=work, env=dvc_environment(), stdout=log, stderr=log, start_new_session=True)
        try:
            process.wait(kill_after_s if kill_after_s is not None else 180)
        except subprocess.TimeoutExpired:
            family = psutil.Process(process.pid).children(recursive=True) if with_children or kill_after_s is None else []
            process.send_signal(signal.SIGKILL)
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.send_signal(signal.SIGKILL)
            process.wait()
        log.seek(0)
        killed = process.returncode == -signal.SIGKILL
        return Ended(None if killed else process.returncode, log.read())


def repro_when_free(work: Path, name: str) -> Ended:
    """Run to the end; an orphan of a killed run may hold the stage's lock for some seconds more."""
    deadline_s = time.monotonic() + 60
    while BUSY in (ended := repro(work, name)).said and time.monotonic() < deadline_s:
        time.sleep(0.5)
    return ended


def _num_rows(work: Path) -> int:
    """Documents, and encoded documents, that the manifests list."""
    paths = [work / "data" / folder / "manifest.json" for folder in ("documents", "latents")]
    return sum(sum(json.loads(path.read_text())["num_documents"].values()) for path in paths if path.is_file())


def _plain(work: Path, kills: int) -> Counts:
    """The same kills with a stage that has no lock of its own and outlives its parent."""
    import psutil

    work.mkdir()
    (work / "stage.py").write_text(PLAIN_STAGE)
    (work / "dvc.yaml").write_text(f"stages:\n  plain:\n    cmd: {sys.executable} stage.py\n    outs: [out]\n")
    run_dvc(work, "init", "--no-scm", "-q")
    orphans: list[psutil.Process] = []
    for _ in range(kills):
        command = [sys.executable, "-m", "dvc", "repro"]
        process = subprocess.Popen(
            command, cwd=work, env=dvc_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline_s = time.monotonic() + 30
        children: list[psutil.Process] = []
        while not children and time.monotonic() < deadline_s:
            time.sleep(0.2)
            children = [child for child in psutil.Process(process.pid).children(recursive=True) if _runs_stage(child)]
        time.sleep(0.3)
        process.kill()
        process.wait()
        orphans += children
    run_dvc(work, "repro", "-q", check=False)
    psutil.wait_procs(orphans, timeout=30)
    lines = (work / "out/rows.txt").read_text().splitlines()
    doubled, lost = len(lines) - len(set(lines)), 30 - len(set(lines))
    return Counts(kills, 0 if doubled or lost else kills, lost, doubled)


def _runs_stage(process: Any) -> bool:
    import psutil

    try:
        return "stage.py" in process.cmdline()
    except psutil.NoSuchProcess:
        return False
