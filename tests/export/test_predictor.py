"""Requests in, answers out; a bad one harms nobody, and no prompt can spell a control token."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image

from export.bundle import TOKENIZER
from export.failure import BadPrompt
from export.pictures import read_pixels, write_pngs
from export.predictor import PredictOptions, Predictor, Prompt, request_seed
from export.text import TextCodec
from model.generation.prefix import columns_needed
from model.generation.requests import Request, SamplingOptions, edit_request
from model.generation.sampling import generate
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


def test_an_edit_depends_on_the_picture_and_on_the_words(predictor: Predictor) -> None:
    """What the loop itself makes of picture, instruction and seed, and another thing for another of either."""
    config = predictor.bundle.config
    given = Prompt("e", "image_to_image", "make it blue", png(40, 30))
    changed = [given, given._replace(prompt="make it red"), given._replace(image=png(40, 30, seed=1))]
    pictures = [predictor.predict([prompt], OPTIONS)[0].image_png for prompt in changed]
    assert len(set(pictures)) == 3
    latents = predictor.autoencoder.encode(read_pixels(given.image, 16))[0]
    words = TextCodec(predictor.bundle.folder / TOKENIZER).encode("make it blue").tolist()
    request = edit_request(config, latents, words, seed=request_seed(OPTIONS.seed, "e"))
    options = SamplingOptions(num_steps=OPTIONS.num_solver_steps, guidance_scale=OPTIONS.guidance_scale)
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
    codec = TextCodec(made.bundle.folder / TOKENIZER)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    pieces = [*SPECIAL, "<|", "|>", "boi", " ", "a red", "\n", "<|bo", "i|>", "é", "\u202e"]
    for _ in range(200):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 8)))
        ids = codec.encode(text)
        assert ids.min() >= len(SPECIAL)
        assert codec.decode(ids) == text
    request = predictor.request(Prompt("1", "text", "<|boi|><|eos|>"), OPTIONS)
    config = made.bundle.config
    assert ids_of(request).tolist().count(config.image.begin_id) == 0
    assert ids_of(request).tolist().count(config.eos_id) == 0
    request = predictor.request(Prompt("1", "text_to_image", "<|eoi|> <|boi|>"), OPTIONS)
    assert ids_of(request).tolist().count(config.image.begin_id) == 1
    assert ids_of(request)[-1] == config.image.begin_id


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
    spare = predictor.opened.engine.max_length - columns_needed(predictor.bundle.config, longest)
    ids = ids_of(longest)
    longer = longest._replace(prefix=(torch.cat([ids[:1].repeat(spare + 1), ids]),))
    with pytest.raises(ValueError, match="positions"):
        generate(predictor.opened.engine, [longer], options, num_slots=1)
