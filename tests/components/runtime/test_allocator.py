"""A process keeps the memory that it frees, unless its environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from components.runtime.allocator import HUGE_PAGES, TUNABLES
from components.runtime.surroundings import settle

REPOSITORY = Path(__file__).resolve().parents[3]
# Pages that the system had to give while eight buffers of 16 MiB were made and freed ten times: by a process that was made to
# give everything back, and by the same one after `keep_freed_memory`.
PROGRAM = """
import ctypes, resource
import torch
from components.runtime.allocator import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory

torch.set_num_threads(1)

def step():
    buffers = [torch.ones(2**22) for _ in range(8)]

def pages():
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

for threshold in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
    ctypes.CDLL(None).mallopt(threshold, 2**17)
given_back = pages()
keep_freed_memory()
print(given_back, pages())
"""
STEP_PAGES = 8 * 2**24 // os.sysconf("SC_PAGE_SIZE")


class Pages(NamedTuple):
    """Taken from the system, before and after."""

    given_back: int
    kept: int


def pages_taken(**environment: str) -> Pages:
    here = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=REPOSITORY, env=here | environment, capture_output=True, text=True, check=True)
    return Pages(*map(int, done.stdout.split()))


def test_freed_memory_is_kept() -> None:
    for environment in ({}, {"GLIBC_TUNABLES": "glibc.malloc.check=0"}):
        taken = pages_taken(**environment)
        assert taken.given_back > 9 * STEP_PAGES
        assert taken.kept < 2 * STEP_PAGES


def test_what_the_environment_says_stays() -> None:
    assert pages_taken(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072").kept > 9 * STEP_PAGES
    assert pages_taken(GLIBC_TUNABLES="glibc.malloc.mmap_threshold=131072").kept > 9 * STEP_PAGES


@pytest.mark.parametrize(
    ("told", "then"),
    [
        (None, HUGE_PAGES),
        ("glibc.malloc.check=0", f"glibc.malloc.check=0:{HUGE_PAGES}"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_processes_that_a_command_starts_take_large_pages(told: str | None, then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TUNABLES, told or "")
    for _ in range(2):  # a stage is started by a command that has done so already
        settle()
        assert os.environ[TUNABLES] == then
