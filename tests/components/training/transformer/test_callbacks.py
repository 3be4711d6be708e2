"""The peak rate that a GPU's utilisation is measured by, from its driver's name for it; and what pictures are drawn of."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from components.runtime.world import World
from components.training.trainer import Every
from components.training.transformer import callbacks
from components.training.transformer.callbacks import _by_time, _parts, _values, peak_flops
from components.training.transformer.image_sampler import ImageSampler, prompts_of
from components.training.transformer.reports import Losses, Progress
from components.training.transformer.state import configuration, new_state
from components.training.transformer.trainer import TransformerTrainer
from core.errors import BadInput
from core.files import read_json_lines
from core.tokenizer import load_tokenizer
from model.transfusion import Transfusion
from tests.components.training.conftest import CAPTIONS, CONFIG, Corpus

# NVIDIA's data sheets: dense bfloat16 products.
NAMED = [
    ("NVIDIA H100 80GB HBM3", 989e12),
    ("NVIDIA GH200 480GB", 989e12),
    ("NVIDIA A100-SXM4-80GB", 312e12),
    ("NVIDIA L4", 121e12),
    ("NVIDIA L40S", 362e12),
    ("NVIDIA L40", None),
    ("NVIDIA GeForce RTX 4090", 165e12),
    ("NVIDIA GeForce RTX 3060", None),
]

BANDS = {"0-0.25": 0.5, "0.5-0.75": 0.25, "0.75-1": 0.125}
ALONE = World(0, 1, torch.device("cpu"))
PARTS = {"loss": 3.0, "loss_text": 2.0, "loss_image": 1.0, "text_elsewhere": 2.0}


@pytest.mark.parametrize(("name", "peak"), NAMED)
def test_a_gpu_is_known_by_its_whole_name(name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == peak


def test_a_cpu_has_no_peak_to_compare_with() -> None:
    assert peak_flops(torch.device("cpu")) is None


def test_a_model_that_diverged_stays_in_the_journal() -> None:
    diverged = Losses(*[math.nan] * 5)
    values = _values("train", diverged)
    assert values.keys() == {"train/loss", "train/loss_text", "train/loss_image"} and all(map(math.isnan, values.values()))
    assert _parts(diverged) == "image nan | text nan"
    one_place = Losses(3.0, 2.0, 1.0, math.nan, 2.0)
    assert _values("train", one_place) == {f"train/{name}": value for name, value in PARTS.items()}
    assert _parts(one_place) == "image 1.00 | text 2.00 elsewhere"


def test_a_band_of_noise_levels_without_a_patch_has_no_point() -> None:
    found = _by_time([0.5, math.nan, 0.25, 0.125])
    assert found == {f"train/loss_image_by_time/{band}": value for band, value in BANDS.items()}


def test_what_is_compiled_after_the_first_report_is_said(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = iter([3, 3, 5])
    monkeypatch.setattr(callbacks, "num_compiled", lambda: next(made))
    rows = corpus.rows("validation")
    state = new_state(CONFIG, corpus.rows("train"), ALONE)
    run = corpus.run(CONFIG, tmp_path, tracked_in=tmp_path)
    slow, read = corpus.rows("train"), corpus.rows("train").batch
    monkeypatch.setattr(slow, "batch", lambda *given, **options: (time.sleep(0.3), read(*given, **options))[1])
    trainer = TransformerTrainer(CONFIG, state, slow, rows, ALONE)
    reports: list[Progress] = []

    def log(step: int) -> None:
        reports.append(trainer.progress(step))
        callback.log(reports[-1])

    with run.resumed(state, ALONE) as checkpointer:
        callback = callbacks.RankZeroCallback(run, rows, state.selection, ALONE, checkpointer)
        trainer.run([Every(1, log)], first_step=CONFIG.max_steps - 2)
    entries = read_json_lines(run.journal)
    assert [entry["perf/recompilations"] for entry in entries] == [0, 0, 2]
    assert [line for line in run.lines.read_text().splitlines() if "compiled anew" in line] == [
        "2 graphs compiled anew by step 12, which took time from the steps"
    ]
    used = trainer.reader.read(corpus.rows("train"), trainer.reader.global_rows(12), 12, 0.0, False).used(0).float().mean()
    assert entries[-1]["perf/padding_share"] == pytest.approx(1 - used.item(), abs=0.02)
    assert reports[0].elapsed_s > reports[0].waited_s >= 0.3
    assert entries[0]["perf/data_wait_share"] == pytest.approx(reports[0].waited_s / reports[0].elapsed_s)
    assert {"train/loss_image_by_time/0-0.25", "train/gradient_norm", "perf/tokens_per_s"} <= entries[-1].keys()


def test_without_prompts_pictures_are_of_held_out_captions(corpus: Corpus) -> None:
    validation, words = corpus.rows("validation"), load_tokenizer(corpus.tokenizer)
    none = dataclasses.replace(CONFIG.sampling, prompts=())
    found = prompts_of(none, validation, words)
    assert 1 < len(found) == len(set(found)) <= 4 and set(found) <= set(CAPTIONS)
    sampler = ImageSampler(
        none, tokenizer=corpus.tokenizer, autoencoder=corpus.autoencoder, validation=validation, seed=CONFIG.seed
    )
    assert sampler.prompts == found
    torch.manual_seed(1)
    pictures = sampler.generate(Transfusion(configuration(CONFIG, validation)).eval())
    assert pictures.shape == (len(found), 8, 8, 3) and pictures.dtype == torch.uint8
    assert prompts_of(CONFIG.sampling, validation, words) == CONFIG.sampling.prompts


def test_neither_prompts_nor_captions(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    validation = corpus.rows("validation")
    monkeypatch.setattr(validation, "_kept", np.zeros_like(validation._kept))
    none = dataclasses.replace(CONFIG.sampling, prompts=())
    with pytest.raises(BadInput, match=r"train\.sampling\.prompts is empty"):
        prompts_of(none, validation, load_tokenizer(corpus.tokenizer))
