"""How an evaluation generates pictures from prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from components.evaluation.config import EvaluateConfig
from components.evaluation.held_out import HeldOut
from components.evaluation.images import generate_images
from components.evaluation.results import EvaluationTarget
from model.config import ModelConfig
from model.diffusion.solvers import chosen_solver
from model.generation.eager import TorchEngine
from model.generation.requests import SamplingOptions


def images_of(target: EvaluationTarget, held_out: HeldOut, prompts: Sequence[str], config: EvaluateConfig) -> np.ndarray:
    """One picture a prompt, of the held-out pictures' size: uint8 [N, side, side, 3]."""
    _, height, width = held_out.images[0].stored.latents.shape[1:]
    return generate_images(
        target.engine or TorchEngine(target.model),
        target.autoencoder,
        target.tokenizer,
        prompts,
        sampling_options(target.model.config, config),
        image_shape=(height, width),
        seed=config.seed,
        num_slots=num_at_once(target, config, guided=config.guidance_scale != 1),
        decoder=target.decoder,
    )


def num_at_once(target: EvaluationTarget, config: EvaluateConfig, *, guided: bool) -> int:
    """Requests in flight together: `batch_size`, or as many as the engine has rows for. Guidance takes two rows a request."""
    if target.max_rows is None:
        return config.batch_size
    return max(1, min(config.batch_size, target.max_rows // (2 if guided else 1)))


def sampling_options(model: ModelConfig, config: EvaluateConfig) -> SamplingOptions:
    """How pictures are generated here, the solver by its own name: what the figures of pictures hold for."""
    solver = chosen_solver(model.process, "auto")
    return SamplingOptions(num_steps=config.num_solver_steps, guidance_scale=config.guidance_scale, solver=solver)


def sampling_facts(model: ModelConfig, config: EvaluateConfig) -> dict[str, Any]:
    """`sampling_options` by name, for a manifest."""
    return asdict(sampling_options(model, config))
