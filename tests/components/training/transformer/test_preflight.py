"""What would fail in the workers is refused before they are started, in one sentence that says what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from components.training.transformer.config import TrainConfig
from components.training.transformer.preflight import NUM_TOKENS_AROUND, check_training
from core.errors import BadInput
from core.manifest import manifest_of
from core.tokenizer import load_tokenizer, train_tokenizer
from tests.components.training.conftest import CAPTIONS, CONFIG, PATCHES_AN_IMAGE, ROW_LENGTH, Corpus, changed


def check(
    corpus: Corpus, config: TrainConfig, *, num_workers: int, latents: Path | None = None, tokenizer: Path | None = None
) -> None:
    folders = {"latents": latents or corpus.latents, "tokenizer": tokenizer or corpus.tokenizer}
    check_training(config, **folders, autoencoder=corpus.autoencoder, num_workers=num_workers)


def refusal(corpus: Corpus, config: TrainConfig, *, tokenizer: Path | None = None, num_workers: int = 2) -> str:
    with pytest.raises(BadInput) as raised:
        check(corpus, config, tokenizer=tokenizer, num_workers=num_workers)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_goes_together_passes(corpus: Corpus) -> None:
    """A row for each worker, the rows' own patch side and vocabulary, rows to train and validate on, room for prompts."""
    check(corpus, CONFIG, num_workers=4)
    facts, words = manifest_of(corpus.latents, kind="latents"), load_tokenizer(corpus.tokenizer)
    assert (CONFIG.batch_rows, CONFIG.model.patch_side) == (4, facts["patch_side"])
    assert (words.vocab_size, words.special_ids) == (facts["vocab_size"], facts["special_ids"])
    assert all(corpus.rows(split).num_rows > 0 for split in ("train", "validation"))
    longest = max(len(words.encode(prompt)) for prompt in CONFIG.sampling.prompts)
    assert longest + PATCHES_AN_IMAGE + NUM_TOKENS_AROUND <= facts["row_length"] == ROW_LENGTH


def test_a_worker_without_a_row(corpus: Corpus) -> None:
    assert "train.batch_rows 4 leaves some of the 5 workers" in refusal(corpus, CONFIG, num_workers=5)


def test_rows_of_another_patch_side(corpus: Corpus) -> None:
    other = changed(model=dataclasses.replace(CONFIG.model, patch_side=4))
    found = refusal(corpus, other)
    assert "packed for patch_side 2, and train.model.patch_side is 4; run `dvc repro encode`" in found


def test_another_vocabulary(corpus: Corpus, tmp_path: Path) -> None:
    train_tokenizer([*CAPTIONS, "entirely other words"], 280).save(tmp_path)
    assert f"a vocabulary of {corpus.rows('train').vocab_size} tokens" in refusal(corpus, CONFIG, tokenizer=tmp_path)


def test_a_prompt_that_leaves_no_room_for_its_picture(corpus: Corpus) -> None:
    fits = "z" * (ROW_LENGTH - PATCHES_AN_IMAGE - 2)
    assert len(load_tokenizer(corpus.tokenizer).encode(fits)) == len(fits)
    just, over = (dataclasses.replace(CONFIG.sampling, prompts=("a red three", prompt)) for prompt in (fits, fits + "z"))
    check(corpus, changed(sampling=just), num_workers=1)
    assert "train.sampling.prompts.1 takes 65 positions" in refusal(corpus, changed(sampling=over))


def test_no_compiler(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no-such-compiler is not installed" in refusal(corpus, changed(compile="on"))
    assert CONFIG.compile == "off"
    check(corpus, CONFIG, num_workers=1)


def test_no_flash_attention(corpus: Corpus) -> None:
    assert "flash_attn.cute (the package flash-attn 4) is not installed" in refusal(corpus, changed(flex_attention="flash"))


def test_missing_rows(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"manifest\.json is missing; run `dvc repro`"):
        check(corpus, CONFIG, latents=tmp_path, num_workers=1)
