"""Requests in, answers out; a bad one harms nobody, and no prompt can spell a control token."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import BadPrompt
from core.images import OWN_RULES
from core.random import seed_of_name
from core.tokenizer import read_tokenizer
from export.bundle import TOKENIZER
from export.config import PredictOptions
from export.run.pictures import read_pixels, write_pngs
from export.run.predictor import NOT_FINITE, Predictor
from export.run.requests import Prompt
from model.generation.requests import Request, SamplingOptions, edit_request
from model.generation.sampling import generate
from model.step import StepInputs, StepOutput
from tests.export.conftest import Made, png

OPTIONS = PredictOptions(batch_size=2, guidance_scale=2.0, num_solver_steps=3, max_new_tokens=6, seed=1)
SPECIAL = ["<|pad|>", "<|bos|>", "<|eos|>", "<|boi|>", "<|eoi|>"]


@pytest.fixture(scope="module")
def predictor(made: Made) -> Predictor:
    return Predictor.open(made.bundle.folder)


def test_every_task_is_answered_in_order(predictor: Predictor) -> None:
    prompts = [
        Prompt("t", "text", "a red"),
        Prompt("i", "text_to_image", "a red three top left"),
        Prompt("bad", "text_to_image", ""),
        Prompt("c", "image_to_text", image=png(40, 30)),
        Prompt("broken", "image_to_text", image=b"no image"),
        Prompt("j", "text_to_image", "a blue seven"),
        Prompt("what", "sing", "a song"),
        Prompt("e", "image_to_image", "make it blue", png(40, 30)),
        Prompt("no words", "image_to_image", "", png(40, 30)),
        Prompt("no picture", "image_to_image", "make it blue"),
    ]
    answers = predictor.predict(prompts, OPTIONS)
    assert [answer.id for answer in answers] == [prompt.id for prompt in prompts]
    text, picture, empty, caption, broken, other, unknown, edit, wordless, pictureless = answers
    assert Image.open(io.BytesIO(picture.image_png)).size == (16, 16)
    assert picture.image_png != other.image_png
    assert text.num_tokens <= 6
    assert not text.image_png
    assert not caption.error
    assert (empty.error, broken.error) == ("prompt is empty", "image is not PNG, JPEG, WEBP")
    assert "sing" in unknown.error
    assert Image.open(io.BytesIO(edit.image_png)).size == (16, 16)
    assert (wordless.error, pictureless.error) == ("prompt is empty", "image is missing or cannot be read")


ODD: list[tuple[Any, Any, Any, bytes | str, str]] = [
    ("a", "text", "I like it \ud83d", b"", "prompt holds '\\ud83d' as character 11"),
    ("a\udc00", "text", "b", b"", "id holds"),
    ("a", "text\ud800", "b", b"", "task holds"),
    (None, "text", "b", b"", "id must be text, not NoneType"),
    (7, "text", "b", b"", "id must be text, not int"),
    ("  ", "text", "b", b"", "id is missing"),
    ("a", ["text"], "b", b"", "task must be text, not list"),
    ("a", "text", float("nan"), b"", "prompt must be text, not float"),
    ("a", "text", b"bytes", b"", "prompt must be text, not bytes"),
    ("a", "text", "é" * (2**19 + 1), b"", "prompt has 1048578 bytes, more than 1048576"),
    ("a", "text", "b" * 2**20, b"", "prompt has 1048576 bytes, more than the 96 positions of the model can hold"),
    ("a", "text", "b" * 200, b"", "the model holds 96; shorten the prompt or take fewer max_new_tokens"),
    ("a", "text_to_image", "b" * 200, b"", "the model holds 96; shorten the prompt"),
    ("a", "text", "b", b"picture", "image has no meaning for text; leave it out"),
    ("a", "text_to_image", "b", b"picture", "image has no meaning for text_to_image"),
    ("a", "image_to_text", "b", b"picture", "prompt has no meaning for image_to_text"),
    ("a", "image_to_text", "", bytes(2**26 + 1), "image has more than 64 MiB"),
    # Only a file of requests names files.
    ("a", "image_to_text", "", __file__, "image is missing or cannot be read"),
]


def test_odd_fields_are_their_request_s_error_alone(predictor: Predictor) -> None:
    good = [Prompt(id, "text", "a red") for id in ("a/b", "..", "n" * 300, "a\0", "Ä", "A\u0308")]
    odd = [Prompt(id, task, prompt, image) for id, task, prompt, image, _ in ODD]
    answers = predictor.predict([*good[:3], *odd, *good[3:]], OPTIONS)
    assert [answer.id for answer in answers[:3] + answers[-3:]] == [prompt.id for prompt in good]
    assert not any(answer.error for answer in answers[:3] + answers[-3:])
    for answer, (*_, said) in zip(answers[3:-3], ODD, strict=True):
        assert said in answer.error and "\n" not in answer.error and len(answer.error) < 300


class Panic(BaseException):
    """As Rust's panics arrive: no Exception."""


class Poisoned:
    """An engine that raises where a prompt holds the marked token, and hands everything else on."""

    def __init__(self, engine: Any, token: int, error: BaseException) -> None:
        self.engine, self.token, self.error = engine, token, error
        self.config, self.max_length = engine.config, engine.max_length

    def new_cache(self, num_slots: int) -> Any:
        return self.engine.new_cache(num_slots)

    def step(self, inputs: StepInputs, cache: Any, rows: slice) -> StepOutput:
        if inputs.input_ids.shape[1] > 1 and bool((inputs.input_ids == self.token).any()):
            raise self.error
        return self.engine.step(inputs, cache, rows)


@contextmanager
def poisoned(predictor: Predictor, error: BaseException) -> Iterator[Predictor]:
    """The predictor with an engine that raises `error` for a prompt with a percent sign."""
    (token,) = predictor.tokenizer.encode("%")
    yield Predictor(predictor.bundle, predictor.opened._replace(engine=Poisoned(predictor.opened.engine, token, error)))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("a kernel failed\nat line 7"), "the answer failed with RuntimeError: a kernel failed"),
        (ValueError(), "the answer failed with ValueError"),
        (Panic("unwrap on None"), "the answer failed with Panic: unwrap on None"),
        (MemoryError(), "the answer needs more memory than there is; take a smaller batch_size or a shorter prompt"),
        (torch.OutOfMemoryError("CUDA"), "the answer needs more memory than there is"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_an_answer_raises_is_its_request_s_error(predictor: Predictor, error: BaseException, said: str) -> None:
    prompts = [
        *(Prompt(f"t{n}", "text", "a %" if n == 3 else "a red") for n in range(5)),
        *(Prompt(f"i{n}", "text_to_image", "%" if n == 0 else "a red") for n in range(3)),
    ]
    wanted = predictor.predict([prompt for prompt in prompts if "%" not in prompt.prompt], OPTIONS)
    with poisoned(predictor, error) as broken:
        answers = {answer.id: answer for answer in broken.predict(prompts, OPTIONS)}
    assert list(answers) == [prompt.id for prompt in prompts]
    for id in ("t3", "i0"):
        assert answers[id].error.startswith(said) and "\n" not in answers[id].error
        assert (answers[id].text, answers[id].image_png) == ("", b"")
    for right in wanted:
        assert not answers[right.id].error
        assert answers[right.id].text == right.text
        assert bool(answers[right.id].image_png) == bool(right.image_png)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=["interrupt", "exit"])
def test_a_wish_to_end_is_no_request_s_error(predictor: Predictor, error: BaseException) -> None:
    with poisoned(predictor, error) as broken, pytest.raises(type(error)):
        broken.predict([Prompt("1", "text", "%"), Prompt("2", "text", "a")], OPTIONS)


def test_a_picture_of_numbers_that_are_none_is_an_error(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = predictor.autoencoder.decode

    def spoilt(latents: torch.Tensor) -> torch.Tensor:
        pixels = decode(latents)
        pixels[1, 2, 3, 4] = float("nan")
        return pixels

    monkeypatch.setattr(predictor.autoencoder, "decode", spoilt)
    answers = predictor.predict([Prompt(id, "text_to_image", "a red") for id in ("a", "b", "c")], OPTIONS)
    assert [answer.error for answer in answers] == ["", NOT_FINITE, ""]
    assert [bool(answer.image_png) for answer in answers] == [True, False, True]


def test_an_edit_depends_on_the_picture_and_on_the_words(predictor: Predictor) -> None:
    """What the loop itself makes of picture, instruction and seed, and another thing for another of either."""
    config = predictor.bundle.config
    picture = png(40, 30)
    given = Prompt("e", "image_to_image", "make it blue", picture)
    changed = [given, given._replace(prompt="make it red"), given._replace(image=png(40, 30, seed=1))]
    pictures = [predictor.predict([prompt], OPTIONS)[0].image_png for prompt in changed]
    assert len(set(pictures)) == 3
    latents = predictor.autoencoder.encode(read_pixels(picture, 16, OWN_RULES))[0]
    words = read_tokenizer(predictor.bundle.folder / TOKENIZER).encode("make it blue")
    request = edit_request(config, latents, words, seed=seed_of_name(OPTIONS.seed, "e"))
    options = SamplingOptions(num_steps=OPTIONS.num_solver_steps, guidance_scale=OPTIONS.guidance_scale, solver="heun")
    (wanted,) = generate(predictor.opened.engine, [request], options, num_slots=2)
    assert pictures[0] == write_pngs(predictor.autoencoder.decode(wanted.images[0][None]))[0]


def test_an_answer_depends_on_its_id_and_not_on_its_neighbours(predictor: Predictor) -> None:
    one = Prompt("7", "text_to_image", "a red three")
    crowd = [Prompt("1", "text_to_image", "a blue seven bottom right"), Prompt("2", "text", "a"), one]
    alone, among = predictor.predict([one], OPTIONS)[0], predictor.predict(crowd, OPTIONS)[2]
    renamed = predictor.predict([one._replace(id="8")], OPTIONS)[0]
    left, right = (np.asarray(Image.open(io.BytesIO(answer.image_png))).astype(int) for answer in (alone, among))
    # Other batch sizes round differently, at most by one grey level.
    assert np.abs(left - right).max() <= 1
    assert renamed.image_png != alone.image_png


def test_no_prompt_spells_a_control_token(made: Made, predictor: Predictor) -> None:
    codec = read_tokenizer(made.bundle.folder / TOKENIZER)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    pieces = [*SPECIAL, "<|", "|>", "boi", " ", "a red", "\n", "<|bo", "i|>", "é", "\u202e"]
    for _ in range(200):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 8)))
        ids = codec.encode(text)
        assert min(ids) >= len(SPECIAL)
        assert codec.decode(ids) == text
    request = predictor.request(Prompt("1", "text", "<|boi|><|eos|>"), OPTIONS)
    config = made.bundle.config
    assert ids_of(request).tolist().count(config.image.begin_token_id) == 0
    assert ids_of(request).tolist().count(config.eos_token_id) == 0
    request = predictor.request(Prompt("1", "text_to_image", "<|eoi|> <|boi|>"), OPTIONS)
    assert ids_of(request).tolist().count(config.image.begin_token_id) == 1
    assert ids_of(request)[-1] == config.image.begin_token_id


def ids_of(request: Request) -> torch.Tensor:
    """The tokens of a prefix that is text alone."""
    (ids,) = request.prefix
    assert isinstance(ids, torch.Tensor)
    return ids


def fits(predictor: Predictor, prompt: Prompt) -> bool:
    try:
        predictor.request(prompt, OPTIONS)
    except BadPrompt:
        return False
    return True


@pytest.mark.parametrize("task", ["text", "text_to_image"])
def test_the_longest_prompt_fits_and_one_more_is_refused(predictor: Predictor, task: str) -> None:
    """The predictor's bound is the generation loop's own."""
    options = SamplingOptions(num_steps=1, guidance_scale=1.0)
    lengths = [length for length in range(1, 100) if fits(predictor, Prompt("1", task, "é" * length))]
    accepted = len(lengths)
    assert lengths == list(range(1, accepted + 1))
    assert 1 <= accepted < 99
    with pytest.raises(BadPrompt, match="shorten the prompt"):
        predictor.request(Prompt("1", task, "é" * (accepted + 1)), OPTIONS)
    longest = predictor.request(Prompt("1", task, "é" * accepted), OPTIONS)
    generate(predictor.opened.engine, [longest], options, num_slots=1)
    spare = predictor.opened.engine.max_length - longest.columns_needed(predictor.bundle.config)
    ids = ids_of(longest)
    longer = longest._replace(prefix=(torch.cat([ids[:1].repeat(spare + 1), ids]),))
    with pytest.raises(ValueError, match="positions"):
        generate(predictor.opened.engine, [longer], options, num_slots=1)
