"""How far is a run, and how fast? The one line a training loop prints every few steps."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """45 -> "45s", 192 -> "3m12s", 11520 -> "3h12m"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def short(number: float) -> str:
    """12431 -> "12.4k", 412000 -> "412k", 3100000 -> "3.1M"."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.0f}{unit}" if number >= 100 * size else f"{number / size:.1f}{unit}"
    return f"{number:.0f}"
