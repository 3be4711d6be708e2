"""Does a process keep the memory that it frees, unless its environment says otherwise?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
# Pages that the system had to give while eight buffers of 16 MiB were made and freed ten times, after a first time.
PROGRAM = """
import resource, sys
import torch
from components.runtime.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

torch.set_num_threads(1)

def step():
    buffers = [torch.ones(2**22) for _ in range(8)]

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
STEP_PAGES = 8 * 2**24 // os.sysconf("SC_PAGE_SIZE")

pytestmark = pytest.mark.skipif(os.confstr("CS_GNU_LIBC_VERSION") is None, reason="needs glibc")


def pages_taken(how: str, **environment: str) -> int:
    command = [sys.executable, "-c", PROGRAM, how]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(command, cwd=REPOSITORY, env=kept | environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("environment", [{}, {"GLIBC_TUNABLES": "glibc.malloc.check=0"}])
def test_freed_memory_is_kept(environment: dict[str, str]) -> None:
    assert pages_taken("keep", **environment) < 2 * STEP_PAGES


def test_what_the_environment_says_stays() -> None:
    assert pages_taken("keep", MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > 9 * STEP_PAGES
    assert pages_taken("keep", GLIBC_TUNABLES="glibc.malloc.mmap_threshold=131072") > 9 * STEP_PAGES
