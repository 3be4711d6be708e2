"""Configuration of the evaluation: every field with its unit; params.yaml holds all values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Training of the independent classifier that judges generated scenes. batch_size: cells a step."""

    max_steps: int
    batch_size: int

    def __post_init__(self) -> None:
        for field in ("max_steps", "batch_size"):
            if not getattr(self, field) >= 2:
                raise ValueError(f"{field}: {getattr(self, field)!r} must be at least 2")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """seed: of prompts and of every noise drawn.

    num_seen_scenes, num_kept_out_scenes: generated scenes judged, of pairs seen in training and of kept-out pairs.
    num_captions: held-out real scenes captioned.
    num_loss_images: held-out images the losses are measured on.
    max_text_bytes: held-out prose that bits per byte are measured on, in UTF-8 bytes.
    guidance_scale, num_solver_steps: of the generated scenes.
    loss_times: noise levels in 0..1 at which the held-out diffusion loss is measured.
    batch_size: requests generated together.
    """

    seed: int
    num_seen_scenes: int
    num_kept_out_scenes: int
    num_captions: int
    num_loss_images: int
    max_text_bytes: int
    guidance_scale: float
    num_solver_steps: int
    loss_times: tuple[float, ...]
    batch_size: int
    judge: JudgeConfig

    def __post_init__(self) -> None:
        counts = (
            "num_seen_scenes",
            "num_captions",
            "num_loss_images",
            "max_text_bytes",
            "num_solver_steps",
            "batch_size",
        )
        for field in (*counts, "guidance_scale"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field}: {getattr(self, field)!r} must be greater than 0")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: {self.seed!r} must lie in 0..{2**32 - 1}")
        if self.num_kept_out_scenes < 0:
            raise ValueError(f"num_kept_out_scenes: {self.num_kept_out_scenes!r} must be at least 0")
        if not self.loss_times or not all(0 < time < 1 for time in self.loss_times):
            raise ValueError(f"loss_times: {self.loss_times!r} must be noise levels between 0 and 1")
