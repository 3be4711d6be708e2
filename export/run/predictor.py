"""A bundle that answers requests: text and pictures in, text and pictures out, over any engine.

Needs the packages `export`, `model` and `core`, a tokenizer library and one engine's library; no Ray, DVC or MLflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import BadInput, BadPrompt
from core.random import seed_of_name
from core.tokenizer import read_tokenizer
from export.bundle import GENERATION, TOKENIZER, Bundle, open_bundle
from export.config import PredictOptions
from export.graph_files import AGAIN
from export.run.answers import Answer, reason_of
from export.run.engine_onnxruntime import AutoencoderGraphs
from export.run.engines import OpenedEngine, open_engine
from export.run.picture_files import read_picture
from export.run.pictures import read_pixels, write_pngs
from export.run.requests import TASKS, Prompt, check_fields, usual_task
from model.diffusion.solvers import chosen_solver
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

# Requests in flight together where nobody says how many, however many there are.
MAX_BATCH = 32
# Options whose values the bundle brings.
MEASURED = ("guidance_scale", "num_solver_steps", "max_new_tokens")
NOT_FINITE = "the picture came out as numbers that are not finite; take a smaller guidance_scale"


class Predictor:
    """An opened bundle with its engine."""

    def __init__(self, bundle: Bundle, opened: OpenedEngine) -> None:
        self.bundle, self.opened = bundle, opened
        self.tokenizer = read_tokenizer(bundle.folder / TOKENIZER, AGAIN)
        try:
            chosen_solver(bundle.config.process, bundle.generation.solver)
        except ValueError as error:
            raise BadInput(f"{bundle.folder / GENERATION}: {error}; {AGAIN}") from None
        self.autoencoder = AutoencoderGraphs(bundle)

    @staticmethod
    def open(folder: Path, *, engine: str = "auto", engines: Path | None = None) -> Predictor:
        """Check every byte of the bundle and open an engine for it; raises BadInput where it cannot."""
        bundle = open_bundle(folder)
        return Predictor(bundle, open_engine(bundle, engine, engines=engines))

    def options(self, **chosen: Any) -> PredictOptions:
        """What is chosen, and for the rest what the bundle's figures were measured with.

        Raises ValueError with a sentence for an option that there is not, and for a value that cannot be used.
        """
        options = {name: getattr(self.bundle.generation, name) for name in MEASURED} | {"batch_size": MAX_BATCH, "seed": 0}
        if unknown := sorted(set(chosen) - set(options)):
            raise ValueError(f"{unknown[0]} is no option; there are {', '.join(sorted(options))}")
        return PredictOptions(**options | chosen)

    def ask(self, prompt: str = "", *, image: str | Path | bytes = b"", task: str = "", **chosen: Any) -> Answer:
        """The answer to one prompt.

        image: a file, or its bytes. task: one of TASKS; by default a picture of the words, the words for a picture, or the
        picture changed as the words say. chosen: as `options` takes them. Raises BadPrompt where there is no answer, and
        ValueError for an option that cannot be used.
        """
        options = self.options(**chosen)
        if not isinstance(image, bytes):
            # Of the file itself, where the name is a link.
            path = Path(image).resolve()
            image = read_picture(path.parent, path.name)
        (answer,) = self.predict([Prompt("1", task or usual_task(prompt, image), prompt, image)], options)
        if answer.error:
            raise BadPrompt(answer.error)
        return answer

    def predict(self, prompts: Sequence[str | Prompt | Answer], options: PredictOptions | None = None) -> list[Answer]:
        """Answer every prompt, in order; one that cannot be fulfilled gets an error and harms no other.

        prompts: plain text asks for a picture; its id is its place, counted from 1. An Answer in a prompt's place, to a request
        that was refused before it came here, is passed on. options: by default `options()`.
        """
        options = options or self.options()
        answers: dict[int, Answer] = {}
        asked: dict[int, Prompt] = {}
        for place, given in enumerate(prompts):
            prompt = Prompt(str(place + 1), usual_task(given), given) if isinstance(given, str) else given
            if isinstance(prompt, Answer):
                answers[place] = prompt
                continue
            try:
                check_fields({name: value for name, value in prompt._asdict().items() if name != "line"})
                asked[place] = prompt
            except ValueError as error:
                answers[place] = Answer(prompt.id, error=str(error))
        # Tasks apart: beside a picture in progress every row of text is padded to the picture's length.
        for task in sorted(TASKS):
            places = [place for place, prompt in asked.items() if prompt.task == task]
            answers |= zip(places, self.answer([asked[place] for place in places], options), strict=True)
        return [answers[place] for place in range(len(prompts))]

    def answer(self, prompts: Sequence[Prompt], options: PredictOptions, *, folder: Path | None = None) -> list[Answer]:
        """`predict` for prompts of one task that passed `check_fields`. folder: where the images that they name lie."""
        answers: dict[int, Answer] = {}
        requests: dict[int, Request] = {}
        for place, prompt in enumerate(prompts):
            try:
                requests[place] = self.request(prompt, options, folder=folder)
            except BaseException as error:
                answers[place] = Answer(prompt.id, error=reason_of(error))
        ids = [prompts[place].id for place in requests]
        answers |= zip(requests, self._generated(ids, list(requests.values()), options), strict=True)
        return [answers[place] for place in range(len(prompts))]

    def request(self, prompt: Prompt, options: PredictOptions, *, folder: Path | None = None) -> Request:
        """What the generation loop is asked; raises BadPrompt. folder: where the image lies, if the prompt names it."""
        # A seed of the request's own: its answer depends on neither its place in the file nor its neighbours.
        config, seed = self.bundle.config, seed_of_name(options.seed, prompt.id)
        if prompt.task == "text_to_image":
            image_shape = self.bundle.generation.image_shape
            request = image_request(config, self._ids(prompt), seed=seed, image_shape=image_shape)
        elif prompt.task == "image_to_text":
            request = caption_request(config, self._latents(prompt, folder), seed=seed, max_new_tokens=options.max_new_tokens)
        elif prompt.task == "image_to_image":
            request = edit_request(config, self._latents(prompt, folder), self._ids(prompt), seed=seed)
        else:
            request = text_request(config, self._ids(prompt), seed=seed, max_new_tokens=options.max_new_tokens)
        needed, held = request.columns_needed(config), self.opened.engine.max_length
        if needed > held:
            shorter = "shorten the prompt" + (" or take fewer max_new_tokens" if request.max_new_tokens else "")
            raise BadPrompt(f"prompt and answer may take {needed} positions, and the model holds {held}; {shorter}")
        return request

    def _ids(self, prompt: Prompt) -> list[int]:
        size, held = len(prompt.prompt.encode()), self.opened.engine.max_length
        if size > held * self.tokenizer.longest_token_bytes:
            # Known without its tokens, which take seconds to find in a megabyte without a space.
            raise BadPrompt(
                f"prompt has {size} bytes, more than the {held} positions of the model can hold; shorten the prompt"
            )
        ids = self.tokenizer.encode(prompt.prompt)
        if not ids:
            raise BadPrompt("prompt is empty")
        return ids

    def _latents(self, prompt: Prompt, folder: Path | None) -> Tensor:
        """Float [C, Y, X]."""
        image = read_picture(folder, prompt.image_name) if folder and prompt.image_name else prompt.image
        if not image or isinstance(image, str):
            raise BadPrompt("image is missing or cannot be read")
        generation = self.bundle.generation
        return self.autoencoder.encode(read_pixels(image, generation.image_side_px, generation.image_rules))[0]

    def _generated(self, ids: Sequence[str], requests: Sequence[Request], options: PredictOptions) -> list[Answer]:
        """The answers in order. Where one of several fails all of them, halves are tried, down to that one."""
        if not requests:
            return []
        sampling = SamplingOptions(
            num_steps=options.num_solver_steps, guidance_scale=options.guidance_scale, solver=self.bundle.generation.solver
        )
        try:
            completions = generate(self.opened.engine, requests, sampling, num_slots=options.batch_size)
            return self._answers(ids, completions)
        except BaseException as error:
            # Says whether to go on before anything is tried again.
            reason = reason_of(error)
        if len(requests) == 1:
            return [Answer(ids[0], error=reason)]
        middle = len(requests) // 2
        halves = (slice(0, middle), slice(middle, None))
        return [answer for half in halves for answer in self._generated(ids[half], requests[half], options)]

    def _answers(self, ids: Sequence[str], completions: Sequence[Completion]) -> list[Answer]:
        files = iter(self._files([image for completion in completions for image in completion.images]))
        answers = []
        for id, completion in zip(ids, completions, strict=True):
            if completion.images:
                file = next(files)
                answers.append(Answer(id, image_png=file, error="" if file else NOT_FINITE))
            else:
                text = self.tokenizer.decode(completion.text.tolist())
                answers.append(Answer(id, text=text, num_tokens=len(completion.text)))
        return answers

    def _files(self, images: Sequence[Tensor]) -> list[bytes]:
        """One PNG file's bytes an image, latents [C, Y, X]; b"" for one that holds numbers which are none."""
        if not images:
            return []
        pixels = self.autoencoder.decode(torch.stack(list(images)))
        files = write_pngs(pixels.nan_to_num())
        return [file if finite else b"" for file, finite in zip(files, pixels.isfinite().flatten(1).all(1), strict=True)]
