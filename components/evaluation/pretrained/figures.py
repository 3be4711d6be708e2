"""The figures of networks that others trained: what each means, which way is better, and whether two models compare by it."""

from __future__ import annotations

from typing import Literal

# Words for components/evaluation/metrics.py, in the order of its Metric.
FIGURES: dict[str, tuple[str, Literal["higher", "lower"], bool]] = {
    "fid/frechet": ("FID of generated pictures; compare only of the same number of pictures", "lower", False),
    "fid/frechet_floor": ("the same of as many training pictures", "lower", False),
    "fid/kid": ("KID of the same pictures in Inception's features; papers print it times 1,000", "lower", False),
    "fid/kid_floor": ("the same of as many training pictures", "lower", False),
    "clip/score": ("CLIP score of generated pictures and their captions: 100 times their cosine", "higher", True),
    "clip/score_of_held_out": ("the same of held-out pictures and their own captions", "higher", False),
    "clip/score_of_wrong_captions": ("the same of generated pictures under other captions", "lower", False),
}
# The parameter of evaluate.weights that figures whose key begins so need.
NEEDS_WEIGHTS = {"fid/": "inception", "clip/": "clip"}
