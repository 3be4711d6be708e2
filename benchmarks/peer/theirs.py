"""The peer's side of the comparison, run by the peer's own environment.

Its documented settings, and of several ways to the same end the fastest: the key-value cache, batched sampling, text decoded
by its text-only path. Flex attention is for CUDA alone there.
"""

from __future__ import annotations

import math
import time
from importlib.metadata import version
from typing import Any

import torch
from transfusion_pytorch import Transfusion  # type: ignore[import-not-found]

from benchmarks.peer.measure import autocast, evaluated_rows, work_of_command_line
from benchmarks.peer.work import LEARNING_RATE, Precision, Work, count_positions, make_documents, make_prompts
from benchmarks.peer.worker import Answer, serve


class Theirs:
    """The peer's model and optimiser, kept between measurements."""

    def __init__(self, work: Work) -> None:
        torch.manual_seed(0)
        size = work.size
        self.work = work
        self.transformer: dict[str, Any] = {
            "dim": size.hidden_size,
            "depth": size.num_hidden_layers,
            "dim_head": size.hidden_size // size.num_attention_heads,
            "heads": size.num_attention_heads,
        }
        self.model = Transfusion(
            num_text_tokens=size.vocab_size,
            dim_latent=size.patch_dim,
            modality_default_shape=work.image.grid,
            # As in its own image examples: patches of an image share one rotary position, and only this tells them apart.
            add_pos_emb=True,
            modality_num_dim=2,
            transformer=self.transformer,
        )
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, fused=True)

    def describe(self) -> Answer:
        """What is run, in words and numbers."""
        return {
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "versions": {name: version(name) for name in ("transfusion-pytorch", "torch")},
            "settings": {
                "transformer": self.transformer,
                "add_pos_emb": True,
                "transformer_defaults": "attention residual, U-net skips, gated values, QK norm, softcap 50",
                "flex_attention": "off; it is used on CUDA alone",
                "modality_processing": self.model.modality_processing,
                "optimiser": "torch.optim.AdamW(fused=True)",
                "training_batch": "padded to the longest document by the model",
                "image": "sample_many (batched, always cached), midpoint solver: two evaluations an interval",
                "text": "generate_text_only(cache_kv=True, temperature=0)",
            },
        }

    def train(self, documents: str, precision: Precision, steps: int) -> Answer:
        """Optimiser steps on the documents; from a list of tensors to the moved weights."""
        given = make_documents(self.work, documents)
        self.model.train()
        loss = torch.zeros(())
        start = time.perf_counter()
        for _ in range(steps):
            with autocast(precision):
                loss = self.model(given)
            loss.backward()
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - start
        assert math.isfinite(loss.item())
        return {"seconds": seconds, "tokens": steps * count_positions(self.work, documents)}

    def image(self, precision: Precision, warm_up: bool = False) -> Answer:
        """One image for every prompt."""
        work = self.work.image
        prompts = list(make_prompts(self.work, work.num_prompts, work.prompt_length))
        # n times make n - 1 intervals, and the midpoint rule evaluates twice in each.
        num_times = (2 if warm_up else work.evaluations) // 2 + 1
        counted = evaluated_rows(self.model.transformer, work.grid[0] * work.grid[1])
        start = time.perf_counter()
        with autocast(precision), counted as rows:
            samples = self.model.sample_many(
                prompts,
                max_length=1,
                force_modality_at_start=(0, work.grid),
                modality_steps=num_times,
                cfg_scale=work.guidance_scale,
                return_unprocessed_modalities=True,
            )
        seconds = time.perf_counter() - start
        images = [part[1] for sample in samples for part in sample if isinstance(part, tuple)]
        assert len(images) == work.num_prompts
        assert all(bool(each.isfinite().all()) for each in images)
        return {"seconds": seconds, "images": len(images), "rows_evaluated": sum(rows)}

    def text(self, precision: Precision, warm_up: bool = False) -> Answer:
        """Greedy tokens after every prompt."""
        work = self.work.text
        prompts = make_prompts(self.work, work.num_rows, work.prompt_length)
        new_tokens = 2 if warm_up else work.new_tokens
        start = time.perf_counter()
        with autocast(precision):
            out = self.model.generate_text_only(prompts, work.prompt_length + new_tokens, temperature=0.0, cache_kv=True)
        seconds = time.perf_counter() - start
        assert out.shape == (work.num_rows, new_tokens)
        return {"seconds": seconds, "tokens": out.numel()}


def main() -> None:
    side = Theirs(work_of_command_line(__doc__))
    serve({"describe": side.describe, "train": side.train, "image": side.image, "text": side.text})


if __name__ == "__main__":
    main()
