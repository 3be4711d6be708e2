"""The learning rate of a step: a warm-up, then a cosine, or a stable rate that falls over the last steps."""

from __future__ import annotations

import math

from components.training.transformer.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of optimiser step `step` (from 1): a pure function, so that a restart needs no schedule's state."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * left(config, step)


def left(config: TrainConfig, step: int) -> float:
    """Of the way from min_learning_rate up to learning_rate, the part at which the rate stands after the warm-up; 0 at the last
    step."""
    if config.schedule.kind == "cosine":
        done = (step - config.warmup_steps) / (config.max_steps - config.warmup_steps)
        return (1 + math.cos(math.pi * done)) / 2
    done = max(0.0, 1 - (config.max_steps - step) / config.num_decay_steps)
    return 1 - done if config.schedule.decay_type == "linear" else 1 - math.sqrt(done)
