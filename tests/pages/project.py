"""A fresh copy of the repository with an environment of its own, and a plain shell in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.faults.repro import TWELVE_STEPS
from tests.pages.commands import ROOT

# For seconds instead of an hour; beside what a corpus calls for.
FEW_STEPS: dict[str, Any] = TWELVE_STEPS | {
    "train.model.preset": "tiny",
    "train.batch_rows": 4,
    "train.max_steps": 8,
    "train.warmup_steps": 2,
    "train.sampling.num_steps": 2,
    "evaluate.num_seen_scenes": 4,
    "evaluate.num_kept_out_scenes": 4,
    "evaluate.num_captions": 4,
    "evaluate.num_pictures": 6,
    "evaluate.num_loss_images": 8,
    "evaluate.guidance_sweep.scales": [1.0, 4.0],
    "evaluate.guidance_sweep.num_prompts": 2,
    "evaluate.num_solver_steps": 2,
    "evaluate.retrieval.group_size": 4,
    "evaluate.retrieval.num_groups": 1,
    "evaluate.digit_classifier.max_steps": 10,
    "infer.num_solver_steps": 2,
    "infer.max_new_tokens": 8,
}


class Started(NamedTuple):
    """A shell at work, and the file that both its streams go to: a pipe that nobody reads would hold it up."""

    process: subprocess.Popen[bytes]
    output: Path

    def said(self) -> str:
        """So far."""
        return self.output.read_text(errors="replace")


class Ended(NamedTuple):
    """code: its exit code. said: both its streams."""

    code: int
    said: str


def fresh_copy(copy: Path) -> Path:
    """Everything git would take, but no results; with its own git history and its own DVC cache."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("reports/") and name != "dvc.lock":
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "fresh"]):
        subprocess.run(["git", *command], cwd=copy, check=True)
    return copy


def make_environment(project: Path) -> None:
    """.venv as make setup leaves it, but for the packages, which are this interpreter's: installing them takes minutes."""
    folder = project / ".venv"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    (Path(packages) / "these.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    for name in ("dvc", "mlflow", "ray"):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" "{Path(sys.executable).parent / name}" "$@"\n')
        program.chmod(0o755)
    (folder / ".complete").touch()


def start(project: Path, *lines: str) -> Started:
    """The lines in a shell that knows a home and the system's programs, in the project's folder, until one fails."""
    home = project.parent / "home"
    home.mkdir(exist_ok=True)
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    # One process of a kind, and one thread where torch chooses: the stages' own tests have two of each, and beside other tests
    # a second thread costs more than it does. Those that a stage asks for itself wait without spinning, as under `make`.
    environment |= {"TRANSFUSION_NUM_WORKERS": "1", "TRANSFUSION_NUM_ACTORS": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    with tempfile.NamedTemporaryFile(dir=home, suffix=".log", delete=False) as output:
        process = subprocess.Popen(
            ["/bin/bash", "-ec", "\n".join(lines)],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Started(process, Path(output.name))


@contextmanager
def killed_on_failure(started: Started) -> Iterator[None]:
    """What ends the block early, a test's time-out too, ends the shell with all that it started, and shows its last words."""
    try:
        yield
    except BaseException:
        kill_tree(started.process)
        print(started.said()[-4000:])
        raise


def ended(started: Started) -> Ended:
    """What became of a shell."""
    with killed_on_failure(started):
        code = started.process.wait(timeout=1800)
    return Ended(code, started.said())


def ran(project: Path, *lines: str) -> str:
    """What the lines said; they must end well."""
    code, said = ended(start(project, *lines))
    assert code == 0, f"{lines[-1]}: exit code {code}\n{said[-4000:]}"
    return said


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the process and all that descends from it (Ray's workers have sessions of their own)."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait(timeout=60)
    psutil.wait_procs(family, timeout=60)


def stages_run(said: str) -> list[str]:
    """The stages that DVC ran, in its order."""
    return re.findall(r"^Running stage '([\w@]+)':", said, re.M)


def report(project: Path, name: str) -> Any:
    """The content of one of reports/."""
    return json.loads((project / "reports" / name).read_text())


def that_say_where_they_were_made(project: Path) -> list[Path]:
    """The stages' outputs that hold a path of the checkout, which would change digests with the folder."""
    written = [path for name in ("data", "artifacts", "reports") for path in (project / name).rglob("*") if path.is_file()]
    assert len(written) > 40
    return [path for path in written if str(project).encode() in path.read_bytes()]
