"""Where a run comes from: who started it, with which command, from which commit, and whether the code differs from that."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from components.runtime.credentials import without_secrets
from components.runtime.diagnosis import first_line

# What counts as code: reports and dvc.lock are what runs write, and parameters are recorded by themselves.
CODE = ("*.py", "dvc.yaml", "pyproject.toml", "constraints.txt")
EXPERIMENT_NAME, EXPERIMENT_BASELINE = "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"


def origin_tags() -> dict[str, str]:
    """The user, the command, the commit, branch and cleanness of the code, and DVC's experiment, where there are any.

    Where there is a repository, and git says nothing of it, that is said.
    """
    command = without_secrets(" ".join(["python", *sys.orig_argv[1:]]))[:500]
    tags = {"mlflow.user": getpass.getuser(), "mlflow.source.name": command, "mlflow.source.type": "LOCAL"}
    try:
        tags["mlflow.source.git.commit"] = git("rev-parse", "HEAD").strip()
        tags["mlflow.source.git.branch"] = git("rev-parse", "--abbrev-ref", "HEAD").strip()
        tags["mlflow.source.git.dirty"] = str(code_differs()).lower()
    except OSError as error:  # git is missing, may not be run, or refuses
        if any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents)):
            print(f"tracking: the run is recorded without all that git knows: {first_line(error)}", flush=True)
    dvc = {"dvc.exp_name": os.environ.get(EXPERIMENT_NAME), "dvc.baseline_rev": os.environ.get(EXPERIMENT_BASELINE)}
    tags |= {key: value for key, value in dvc.items() if value}
    # Arguments and variables that are no UTF-8 hold surrogates, which no store takes.
    return {key: value.encode(errors="replace").decode() for key, value in tags.items()}


def code_state() -> dict[str, Any]:
    """The commit, and whether the code differs from it; nothing where git says nothing."""
    try:
        return {"commit": git("rev-parse", "HEAD").strip(), "differs": code_differs()}
    except OSError:
        return {}


def code_differs() -> bool:
    """Whether files of CODE are not as the commit has them. OSError as `git` raises it."""
    return bool(git("status", "--porcelain", "--", *CODE).strip())


def committed(path: Path) -> str | None:
    """A file's text in the commit that the run starts from, of DVC's experiment the one it was begun at; None without one.

    path: relative to the working directory.
    """
    try:
        return git("show", f"{os.environ.get(EXPERIMENT_BASELINE) or 'HEAD'}:./{path.as_posix()}")
    except OSError:
        return None


def git(*arguments: str) -> str:
    """What git prints. OSError with its reason where it is missing or refuses."""
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if done.returncode:
        raise OSError(first_line(done.stderr.decode(errors="replace")) or f"git ends with {done.returncode}")
    return done.stdout.decode(errors="replace")
