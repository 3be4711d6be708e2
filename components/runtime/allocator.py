"""Memory kept from one step to the next, and in large pages, by a process that makes the same large tensors again and again.

glibc gives large freed blocks back to the system, which hands out pages filled with zeros the next time. A training step on a
CPU frees and makes again gigabytes; where it keeps them it is some 4% faster (benchmarks/README.md), and where they lie in
pages of 2 MiB another 9%. GPUs have an allocator of torch's own that keeps everything.
"""

from __future__ import annotations

import ctypes
import os
import platform

# Parameters of mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# The largest that glibc takes on 64 bits; blocks above it are given back whatever is asked.
MAX_MMAP_THRESHOLD_BYTES = 32 * 2**20
NEVER = -1
# glibc reads its settings as a process starts; older ones than 2.35, and other libraries, pass over this one.
TUNABLES, HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def keep_freed_memory() -> None:
    """From now on this process keeps what it frees, for itself: its memory stays at its peak.

    Nothing happens where the C library is not glibc, or where the environment says how glibc is to behave.
    """
    if platform.libc_ver()[0] != "glibc" or _is_told():
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD_BYTES)
    libc.mallopt(M_TRIM_THRESHOLD, NEVER)


def use_huge_pages() -> None:
    """From now on the processes that this one starts ask the system for large pages, unless the environment says otherwise."""
    told = os.environ.get(TUNABLES, "")
    if "hugetlb" not in told:
        os.environ[TUNABLES] = ":".join(part for part in (told, HUGE_PAGES) if part)


def _is_told() -> bool:
    named = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    return any(name in os.environ for name in named) or "threshold" in os.environ.get(TUNABLES, "")
