"""Numbers as people read them: as many digits as say something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def number(value: float) -> str:
    """A count or a plain number: 16000 -> "16,000", 0.00059 -> "0.00059", 0.0000123 -> "1.23e-05"."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def written(value: float) -> str:
    """A measured figure, with places that stand under each other: 1.0 -> "1.000", 11.0867 -> "11.09", 0.00056 -> "5.6e-04"."""
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.0f}"


def between(interval: Mapping[str, Any] | None) -> str:
    """An interval, "0.995 to 1.000"; nothing for none."""
    return f"{written(interval['low'])} to {written(interval['high'])}" if interval else ""


def with_interval(value: float, interval: Mapping[str, Any] | None) -> str:
    """A figure and its interval, "0.998 (0.995 to 1.000)"."""
    return f"{written(value)} ({between(interval)})" if interval else written(value)
