"""Is generation what one full forward would say: in every phase, for every neighbourhood, under guidance?"""

from __future__ import annotations

import random

import pytest
import torch

from model.config import ModelConfig
from model.eager import TorchEngine
from model.patches import cut
from model.requests import Request, SamplingOptions, caption_request, image_request, text_request
from model.sampling import generate
from model.solvers import advance, guided, solver_times
from model.transfusion import Batch, Transfusion
from tests.model.conftest import pack, tiny_config, tiny_model


def _full_forward(
    model: Transfusion, document: list[int], patches: torch.Tensor, times: torch.Tensor
) -> tuple[torch.Tensor, Batch]:
    """Logits of every position of one document in one uncached pass; patches at the given noise levels."""
    batch = pack([[document]], model.config, len(document))
    everywhere = torch.arange(len(document))
    with torch.inference_mode():
        output = model(batch._replace(predict_at=everywhere, patches=patches), patches, times)
    return output.logits, batch


def _greedy(config: ModelConfig, logits: torch.Tensor, *, boi: bool) -> int:
    logits = logits.clone()
    logits[[config.pad_id, config.bos_id, config.eoi_id, *([] if boi else [config.boi_id])]] = float("-inf")
    return int(logits.argmax())


def _uncached_image(
    model: Transfusion, prefix: list[int], before: list[torch.Tensor], noise: torch.Tensor, steps: int, scale: float
) -> torch.Tensor:
    """Denoise one image by whole-sequence forwards, the earlier images clean."""
    config, n = model.config, len(noise)
    document = [*prefix, *([-9] * n)]
    times, x = torch.tensor(solver_times(config.objective, steps)), noise
    for step in range(steps):
        with torch.inference_mode():
            batch = pack([[document]], config, len(document))
            clean = torch.cat([*before, x])
            time = torch.cat([torch.zeros(len(before)), times[step : step + 1]])
            conditional = model(batch, clean, time).prediction[-n:]
            alone = pack([[[config.boi_id, *([-9] * n)]]], config, n + 1)
            unconditional = model(alone, x, times[step : step + 1]).prediction
        x = advance(config.objective, x, guided(conditional, unconditional, scale), times[step], times[step + 1])
    return x


@pytest.mark.parametrize("objective", ["flow", "epsilon"])
def test_cached_equals_uncached_through_text_image_and_text_after_it(objective: str, rng: random.Random) -> None:
    """Prefill, decoding, denoising in place, the commit of the clean image, and text after it: 1e-5 in fp32."""
    model = tiny_model(objective, seed=rng.randrange(1000))
    config, seed, steps, scale = model.config, rng.randrange(1000), 3, 1.7
    given = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(seed))
    prefix = (torch.tensor([1, 9, 11]), given, torch.tensor([13, config.boi_id]))
    request = Request(prefix, seed, max_new_tokens=7, max_images=1, image_shape=(4, 4))
    completion = generate(TorchEngine(model), [request], SamplingOptions(num_steps=steps, guidance_scale=scale), num_slots=1)[0]

    first = cut(given.unsqueeze(0), 2)[0]
    noise = torch.randn(4, config.patch_width, generator=torch.Generator().manual_seed(seed))
    document = [1, 9, 11, config.boi_id, -1, -1, config.eoi_id, 13, config.boi_id]
    image = _uncached_image(model, document, [first], noise, steps, scale)
    # Relative to the image's scale: an untrained model's numbers may be large.
    atol = 1e-5 * max(1.0, float(image.abs().max()))
    torch.testing.assert_close(cut(completion.images[0].unsqueeze(0), 2)[0], image, rtol=1e-5, atol=atol)

    document = [*document, *([-2] * 4), config.eoi_id]
    patches, written = torch.cat([first, image]), []
    for _ in range(7):
        logits, _ = _full_forward(model, document, patches, torch.zeros(2))
        token = _greedy(config, logits[-1], boi=False)
        if token == config.eos_id:
            break
        written.append(token)
        document = [*document, token]
    assert completion.text.tolist() == written


def _mixed_requests(config: ModelConfig, rng: random.Random) -> list[Request]:
    word = lambda: rng.randrange(5, 64)  # noqa: E731
    latents = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(rng.randrange(1000)))
    return [
        image_request(config, [word(), word()], seed=1, image_shape=(4, 4)),
        caption_request(config, latents, seed=2, max_new_tokens=6),
        text_request(config, [word()], seed=3, max_new_tokens=5),
        Request((torch.tensor([1, word()]),), 4, max_new_tokens=9, max_images=2, image_shape=(4, 2)),
        image_request(config, [word() for _ in range(9)], seed=5, image_shape=(4, 2)),
    ]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_request_does_not_depend_on_its_neighbours(temperature: float, rng: random.Random) -> None:
    model = tiny_model(seed=rng.randrange(1000))
    requests = _mixed_requests(model.config, rng)
    options = SamplingOptions(num_steps=3, guidance_scale=2.0, temperature=temperature)
    engine = TorchEngine(model)
    together = generate(engine, requests, options, num_slots=3)
    for request, completion in zip(requests, together, strict=True):
        alone = generate(engine, [request], options, num_slots=1)[0]
        for one, other in zip(alone.segments, completion.segments, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_guidance_at_one_is_the_conditional_branch_and_otherwise_changes_the_image() -> None:
    model = tiny_model()
    request = image_request(model.config, [7, 8, 9], seed=3, image_shape=(4, 4))

    def image(scale: float) -> torch.Tensor:
        options = SamplingOptions(num_steps=4, guidance_scale=scale)
        return generate(TorchEngine(model), [request], options, num_slots=1)[0].images[0]

    noise = torch.randn(4, model.config.patch_width, generator=torch.Generator().manual_seed(3))
    conditional = _uncached_image(model, [1, 7, 8, 9, 3], [], noise, 4, 1.0)
    torch.testing.assert_close(cut(image(1.0).unsqueeze(0), 2)[0], conditional, rtol=1e-5, atol=1e-5)
    assert (image(3.0) - image(1.0)).abs().max() > 1e-2


def test_a_request_too_long_for_the_slots_is_refused() -> None:
    config = tiny_config()
    request = text_request(config, [5] * 150, seed=0, max_new_tokens=50)
    with pytest.raises(ValueError, match="request 0 may need"):
        generate(TorchEngine(tiny_model()), [request], SamplingOptions(num_steps=2, guidance_scale=1.0), num_slots=1)
