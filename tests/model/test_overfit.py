"""The whole circle closes: four interleaved documents learnt by heart come back, the text exactly, the images nearly."""

from __future__ import annotations

import random
from dataclasses import replace

import torch

from model.generation.eager import TorchEngine
from model.generation.requests import Latent, Request, SamplingOptions
from model.generation.sampling import generate
from model.latents.patches import unpatchify
from model.loss import loss_sums
from model.loss_options import PLAIN
from model.transfusion import Transfusion
from tests.model.conftest import pack, tiny_config

NUM_STEPS = 900
# Of images with deviation 1.
MAX_IMAGE_ERROR = 0.05


def _document(number: int, rng: random.Random) -> list[int]:
    """A word of its own, then text, image, text, image, text."""
    words = lambda: [rng.randrange(10, 64) for _ in range(rng.randrange(2, 6))]  # noqa: E731
    image = lambda mark: [3, *([mark] * 4), 4]  # noqa: E731
    return [1, 5 + number, *words(), *image(-1), *words(), *image(-2), *words(), 2]


def test_four_interleaved_documents_are_learnt_by_heart(rng: random.Random) -> None:
    torch.manual_seed(rng.randrange(1000))
    config = replace(tiny_config(), hidden_size=64, num_attention_heads=4, intermediate_size=128)
    model = Transfusion(config).train()
    documents = [_document(number, rng) for number in range(4)]
    batch = pack([documents[:2], documents[2:]], config, max(sum(map(len, documents[at : at + 2])) for at in (0, 2)))
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=NUM_STEPS)
    for step in range(NUM_STEPS):
        sums = loss_sums(model, batch, 0, step, PLAIN)
        (sums.text / sums.num_tokens + sums.image / sums.num_values).backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()

    requests = [Request((torch.tensor(document[:2]),), 0, 40, 2, ((4, 4),)) for document in documents]
    options = SamplingOptions(num_steps=20, guidance_scale=1.0)
    completions = generate(TorchEngine(model.eval()), requests, options, num_slots=3)
    images = unpatchify(batch.latents[0].patches.view(8, 4, -1), channels=3, axes=(4, 4), patch_size=(2, 2))
    for number, (document, completion) in enumerate(zip(documents, completions, strict=True)):
        kinds = [isinstance(segment, Latent) for segment in completion.segments]
        assert kinds == [False, True, False, True, False]
        assert completion.text.tolist() == [token for token in document[2:] if token >= 10]
        for image, expected in zip(completion.images, images[2 * number : 2 * number + 2], strict=True):
            error = float((image - expected).square().mean())
            print(f"document {number}: squared error {error:.4f}")
            assert error < MAX_IMAGE_ERROR
