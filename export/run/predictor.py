"""A bundle that answers requests: text and pictures in, text and pictures out, over any engine.

Needs the packages `model` and `export`, a tokenizer library and one engine's library; no Ray, DVC or MLflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from core.errors import BadPrompt
from core.images import ImageError
from core.random import seed_of_name
from core.tokenizer import read_tokenizer
from export.bundle import TOKENIZER, Bundle, open_bundle
from export.config import check_options
from export.graph_files import AGAIN
from export.run.engine_onnxruntime import AutoencoderGraphs
from export.run.engines import OpenedEngine, open_engine
from export.run.picture_files import check_size
from export.run.pictures import read_pixels, write_pngs
from export.run.requests import check_parts
from export.text import check_text
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

MAX_REASON_CHARACTERS = 300
NOT_FINITE = "the picture came out as numbers that are not finite; take a smaller guidance_scale"


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """batch_size: requests in flight together. seed: with a request's id, it fixes that request's noise.

    guidance_scale: 1 is none. num_solver_steps: an image. max_new_tokens: of one answer. Raises ValueError with a sentence.
    """

    batch_size: int
    guidance_scale: float
    num_solver_steps: int
    max_new_tokens: int
    seed: int

    def __post_init__(self) -> None:
        check_options(vars(self))


class Prompt(NamedTuple):
    """task: one of export/run/requests.py's TASKS, which says what each is made of. image: a file's bytes."""

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
        self.tokenizer = read_tokenizer(bundle.folder / TOKENIZER, AGAIN)
        self.autoencoder = AutoencoderGraphs(bundle)

    @staticmethod
    def open(folder: Path, *, engine: str = "auto", engines: Path | None = None) -> Predictor:
        """Check every byte of the bundle and open an engine for it; raises BadInput where it cannot."""
        bundle = open_bundle(folder)
        return Predictor(bundle, open_engine(bundle, engine, engines=engines))

    def predict(self, prompts: Sequence[Prompt | Answer], options: PredictOptions) -> list[Answer]:
        """Answer every prompt, in order; one that cannot be fulfilled gets an error and harms no other.

        An Answer in a prompt's place, to a request that was refused before it came here, is passed on.
        """
        answers: dict[int, Answer] = {}
        members: dict[str, list[_Member]] = {}
        for index, prompt in enumerate(prompts):
            if isinstance(prompt, Answer):
                answers[index] = prompt
                continue
            try:
                member = _Member(index, prompt.id, self.request(prompt, options))
                members.setdefault(prompt.task, []).append(member)
            except BaseException as error:
                answers[index] = Answer(prompt.id, error=_reason(error))
        # Tasks apart: beside a picture in progress every row of text is padded to the picture's length.
        for task in sorted(members):
            answers |= self._generated(members[task], options)
        return [answers[index] for index in range(len(prompts))]

    def request(self, prompt: Prompt, options: PredictOptions) -> Request:
        """What the generation loop is asked; raises BadPrompt."""
        _check(prompt)
        # A seed of the request's own: its answer depends on neither its place in the file nor its neighbours.
        config, seed = self.bundle.config, seed_of_name(options.seed, prompt.id)
        if prompt.task == "text_to_image":
            image_shape = self.bundle.generation.image_shape
            request = image_request(config, self._ids(prompt), seed=seed, image_shape=image_shape)
        elif prompt.task == "image_to_text":
            request = caption_request(config, self._latents(prompt), seed=seed, max_new_tokens=options.max_new_tokens)
        elif prompt.task == "image_to_image":
            request = edit_request(config, self._latents(prompt), self._ids(prompt), seed=seed)
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

    def _latents(self, prompt: Prompt) -> Tensor:
        """Float [C, Y, X]."""
        if not prompt.image:
            raise BadPrompt("image is missing or cannot be read")
        check_size(prompt.image)
        generation = self.bundle.generation
        return self.autoencoder.encode(read_pixels(prompt.image, generation.image_side_px, generation.image_rules))[0]

    def _generated(self, members: Sequence[_Member], options: PredictOptions) -> dict[int, Answer]:
        """The answers by the prompts' places. Where one of several fails all of them, halves are tried, down to that one."""
        sampling = SamplingOptions(num_steps=options.num_solver_steps, guidance_scale=options.guidance_scale)
        requests = [member.request for member in members]
        try:
            completions = generate(self.opened.engine, requests, sampling, num_slots=options.batch_size)
            answers = self._answers([member.id for member in members], completions)
        except BaseException as error:
            if len(members) == 1:
                return {members[0].place: Answer(members[0].id, error=_reason(error))}
            # Says whether to go on before anything is tried again.
            _reason(error)
            middle = len(members) // 2
            return self._generated(members[:middle], options) | self._generated(members[middle:], options)
        return {member.place: answer for member, answer in zip(members, answers, strict=True)}

    def _answers(self, ids: Sequence[str], completions: Sequence[Completion]) -> list[Answer]:
        images = [image for completion in completions for image in completion.images]
        files = iter(self._files(images))
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


class _Member(NamedTuple):
    """A request of one task. place: of its prompt among all."""

    place: int
    id: str
    request: Request


def _check(prompt: Prompt) -> None:
    """Raise BadPrompt where a field holds what it cannot, whoever filled it in."""
    try:
        for name in ("id", "task", "prompt"):
            check_text(name, getattr(prompt, name))
        given = {"prompt": prompt.prompt, "image": prompt.image}
        check_parts(prompt.task, [name for name, value in given.items() if value])
    except ValueError as error:
        raise BadPrompt(str(error)) from None
    if not prompt.id.strip():
        raise BadPrompt("id is missing; give every request its own")


def _reason(error: BaseException) -> str:
    """Why a request has no answer, in one sentence. An error that asks the process to end is raised again."""
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    if isinstance(error, BadPrompt | ImageError):
        return str(error)
    # The accelerator's is a class of torch's own.
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "the answer needs more memory than there is; take a smaller batch_size or a shorter prompt"
    # The tokenizer's panics derive from BaseException alone, so callers catch that.
    first = (str(error).strip().splitlines() or [""])[0]
    return f"the answer failed with {type(error).__name__}{': ' if first else ''}{first[:MAX_REASON_CHARACTERS]}"
