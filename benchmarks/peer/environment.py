"""The peer's own environment, made when it is missing, with the versions that are written down.

Wheels are looked for where pip is told to look (PIP_FIND_LINKS), so that a CPU build of torch given there serves both sides.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def peer_python(folder: Path) -> Path:
    """The interpreter of the environment in `folder`; made anew where it is missing or of other versions."""
    python, stamp = folder / "bin" / "python", folder / "complete.txt"
    wanted = REQUIREMENTS.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making the peer's environment in {folder} ...", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([*_installer(python), "-q", "-r", str(REQUIREMENTS)], check=True, env=_environment())
    stamp.write_text(wanted)
    return python


def _installer(python: Path) -> list[str]:
    """uv where it is to be had, beside this interpreter or on the path; else pip."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv:
        return [uv, "pip", "install", "--python", str(python)]
    return [str(python), "-m", "pip", "install", "--disable-pip-version-check"]


def _environment() -> dict[str, str]:
    """uv reads none of pip's settings."""
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    return {**os.environ, **({"UV_FIND_LINKS": links} if links else {})}
