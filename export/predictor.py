"""How does a bundle answer requests? Text and pictures in, text and pictures out, over any engine.

Needs the packages `model` and `export`, a tokenizer library and one engine's library; no Ray, DVC or MLflow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from export.bundle import TOKENIZER, Bundle, open_bundle
from export.engine_onnxruntime import AutoencoderGraphs
from export.engines import OpenedEngine, open_engine
from export.failure import BadPrompt
from export.pictures import read_pixels, write_pngs
from export.requests import TASKS
from export.text import TextCodec
from model.generation.prefix import columns_needed
from model.generation.requests import (
    Completion,
    Request,
    SamplingOptions,
    caption_request,
    edit_request,
    image_request,
    text_request,
)
from model.generation.sampling import generate


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """batch_size: requests in flight together. seed: with a request's id, it fixes that request's noise.

    guidance_scale: 1 is none. num_solver_steps: an image. max_new_tokens: of one answer.
    """

    batch_size: int
    guidance_scale: float
    num_solver_steps: int
    max_new_tokens: int
    seed: int


class Prompt(NamedTuple):
    """task: one of export/requests.py's TASKS, which says what each is made of. image: a file's bytes."""

    id: str
    task: str
    prompt: str = ""
    image: bytes = b""


class Answer(NamedTuple):
    """text or image_png (a PNG file's bytes), by the task; or error, one sentence, where there is no answer."""

    id: str
    text: str = ""
    image_png: bytes = b""
    error: str = ""
    num_tokens: int = 0


class Predictor:
    """An opened bundle with its engine."""

    def __init__(self, bundle: Bundle, opened: OpenedEngine) -> None:
        self.bundle, self.opened = bundle, opened
        self.text = TextCodec(bundle.folder / TOKENIZER)
        self.autoencoder = AutoencoderGraphs(bundle)

    @staticmethod
    def open(folder: Path, *, engine: str = "auto", engines: Path | None = None) -> Predictor:
        """Check every byte of the bundle and open an engine for it; raises ExportRefused where it cannot."""
        bundle = open_bundle(folder)
        return Predictor(bundle, open_engine(bundle, engine, engines=engines))

    def predict(self, prompts: Sequence[Prompt], options: PredictOptions) -> list[Answer]:
        """Answer every prompt, in order; one that cannot be fulfilled gets an error and harms no other."""
        answers: dict[int, Answer] = {}
        requests: dict[int, Request] = {}
        for index, prompt in enumerate(prompts):
            try:
                requests[index] = self.request(prompt, options)
            except BadPrompt as error:
                answers[index] = Answer(prompt.id, error=str(error))
        sampling = SamplingOptions(num_steps=options.num_solver_steps, guidance_scale=options.guidance_scale)
        # Tasks apart: beside a picture in progress every row of text is padded to the picture's length.
        for task in sorted({prompts[index].task for index in requests}):
            members = [index for index in requests if prompts[index].task == task]
            completions = generate(self.opened.engine, [requests[i] for i in members], sampling, num_slots=options.batch_size)
            for index, answer in zip(members, self._answers([prompts[i].id for i in members], completions), strict=True):
                answers[index] = answer
        return [answers[index] for index in range(len(prompts))]

    def request(self, prompt: Prompt, options: PredictOptions) -> Request:
        """What the generation loop is asked; raises BadPrompt."""
        if prompt.task not in TASKS:
            raise BadPrompt(f"task {prompt.task!r} is not one of {', '.join(TASKS)}")
        config, seed = self.bundle.config, request_seed(options.seed, prompt.id)
        if prompt.task == "text_to_image":
            image_shape = self.bundle.generation.image_shape
            request = image_request(config, self._ids(prompt), seed=seed, image_shape=image_shape)
        elif prompt.task == "image_to_text":
            request = caption_request(config, self._latents(prompt), seed=seed, max_new_tokens=options.max_new_tokens)
        elif prompt.task == "image_to_image":
            request = edit_request(config, self._latents(prompt), self._ids(prompt), seed=seed)
        else:
            request = text_request(config, self._ids(prompt), seed=seed, max_new_tokens=options.max_new_tokens)
        needed, held = columns_needed(config, request), self.opened.engine.max_length
        if needed > held:
            raise BadPrompt(f"prompt and answer may take {needed} positions, and the model holds {held}; shorten the prompt")
        return request

    def _ids(self, prompt: Prompt) -> list[int]:
        ids = self.text.encode(prompt.prompt).tolist()
        if not ids:
            raise BadPrompt("prompt is empty")
        return ids

    def _latents(self, prompt: Prompt) -> Tensor:
        """Float [C, Y, X]."""
        if not prompt.image:
            raise BadPrompt("image is missing or cannot be read")
        return self.autoencoder.encode(read_pixels(prompt.image, self.bundle.generation.image_side_px))[0]

    def _answers(self, ids: Sequence[str], completions: Sequence[Completion]) -> list[Answer]:
        images = [image for completion in completions for image in completion.images]
        files = iter(write_pngs(self.autoencoder.decode(torch.stack(images))) if images else [])
        answers = []
        for id, completion in zip(ids, completions, strict=True):
            if completion.images:
                answers.append(Answer(id, image_png=next(files)))
            else:
                answers.append(Answer(id, text=self.text.decode(completion.text), num_tokens=len(completion.text)))
        return answers


def request_seed(seed: int, id: str) -> int:
    """A seed of the request's own, so that its answer depends on neither its place in the file nor its neighbours."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{id}".encode()).digest()[:7], "big")
