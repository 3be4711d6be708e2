"""Another guidance scale than the one used, where the sweep shows that its pictures are nearer to real ones at no cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FRECHET, OBJECTS = "guidance/frechet", "guidance/objects_right"


def better_scale(metrics: Mapping[str, float], intervals: Mapping[str, Mapping[str, Any]], used: float) -> str:
    """A sentence without a full stop; "" where no scale is shown to be better. used: evaluate.guidance_scale.

    Nearer: the intervals of the two Frechet distances lie apart. At no cost: the objects right, where they are measured, are
    not shown to be fewer. Retrieval draws no pictures, so guidance does not change it.
    """
    now = f"{FRECHET}/{used:g}"
    if now not in intervals:
        return ""
    scales = [key.rpartition("/")[2] for key in metrics if key.startswith(f"{FRECHET}/") and key in intervals]
    nearer = [scale for scale in scales if intervals[f"{FRECHET}/{scale}"]["high"] < intervals[now]["low"]]
    kept = [scale for scale in nearer if not _fewer_objects(metrics, intervals, scale, used)]
    if not kept:
        return ""
    best = min(kept, key=lambda scale: metrics[f"{FRECHET}/{scale}"])
    distances = f"Frechet {metrics[f'{FRECHET}/{best}']:.1f} instead of {metrics[now]:.1f}"
    return f"evaluate.guidance_scale {used:g}: pictures are nearer to real ones at {best} ({distances})"


def _fewer_objects(metrics: Mapping[str, float], intervals: Mapping[str, Mapping[str, Any]], scale: str, used: float) -> bool:
    there, here = f"{OBJECTS}/{scale}", f"{OBJECTS}/{used:g}"
    return there in intervals and here in metrics and intervals[there]["high"] < metrics[here]
