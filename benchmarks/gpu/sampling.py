"""Images a second of the generation loop: eagerly, compiled, and with CUDA graphs.

As it is used: `generate` with weights and cache in bfloat16, classifier-free guidance as paired rows, Euler steps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import cast

import torch

from benchmarks.gpu.clock import Result, attempt, seconds_of_each
from benchmarks.gpu.work import FIRST_WORD, PATCH_SIDE, Work, configuration
from model.generation.eager import Mode, TorchEngine
from model.generation.requests import Request, SamplingOptions, image_request
from model.generation.sampling import generate
from model.transfusion import Transfusion

# Measurements of a mode: each is a whole batch of images.
REPEATS = 5


def sampling(work: Work, preset: str, device: torch.device) -> Iterator[Result]:
    """images/s of each mode."""
    torch.manual_seed(0)
    model = Transfusion(configuration(work, preset)).to(device).bfloat16()
    for mode in work.sampling.modes:
        yield {mode: attempt(lambda: measure(work, model, cast(Mode, mode), device))}  # noqa: B023


def measure(work: Work, model: Transfusion, mode: Mode, device: torch.device) -> Result:
    """The median of REPEATS batches, after two short ones: graphs are captured in the first and replayed in the second."""
    given = work.sampling
    requests = make_requests(work, model)
    columns = given.prompt_length + 2 + work.grid[0] * work.grid[1]
    engine = TorchEngine(model, columns, mode=mode)
    options = [
        SamplingOptions(num_steps=steps, guidance_scale=given.guidance_scale, solver="euler")
        for steps in (min(given.num_steps, 4), given.num_steps)
    ]
    start = time.perf_counter()
    for _ in range(2):
        generate(engine, requests, options[0], num_slots=given.batch)
    warm_up_seconds = time.perf_counter() - start
    finite: list[bool] = []

    def run(_: int) -> None:
        completions = generate(engine, requests, options[1], num_slots=given.batch)
        images = [image for completion in completions for image in completion.images]
        finite.append(len(images) == given.batch and all(bool(image.isfinite().all()) for image in images))

    repeats = min(REPEATS, work.repeats)
    seconds = seconds_of_each(run, repeats, device)
    if not all(finite):
        raise RuntimeError("an image is missing or not finite")
    return {
        "images_per_second": given.batch / statistics.median(seconds),
        "seconds": seconds,
        "warm_up_seconds": warm_up_seconds,
    }


def make_requests(work: Work, model: Transfusion) -> list[Request]:
    """One image for every prompt."""
    given = work.sampling
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(FIRST_WORD, work.vocab_size, (given.batch, given.prompt_length), generator=generator)
    shape = (work.grid[0] * PATCH_SIDE, work.grid[1] * PATCH_SIDE)
    return [image_request(model.config, prompt.tolist(), seed=seed, image_shape=shape) for seed, prompt in enumerate(prompts)]
