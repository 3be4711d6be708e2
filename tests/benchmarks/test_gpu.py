"""The GPU benchmark is ready to run: every part, at toy size on a CPU, on the work that it says."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.__main__ import figures, plan, run_part, share_of
from benchmarks.gpu.parity import random_layout
from benchmarks.gpu.production import MadeUpRows
from benchmarks.gpu.work import (
    FULL,
    SPECIAL_IDS,
    TOY,
    configuration,
    make_document,
    num_positions,
    num_tokens,
    plan_row,
)
from benchmarks.packed_batch import packed_batch
from benchmarks.rows import batch_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def seed() -> int:
    drawn = random.SystemRandom().randrange(2**31)
    print(f"seed {drawn}")
    return drawn


def test_the_whole_command_at_toy_size(tmp_path: Path) -> None:
    out = tmp_path / "results" / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--toy", "--minutes", "25", "--out", str(out)]
    # A bare machine with a GPU has none of these.
    for name in ("ray", "mlflow", "dvc", "pydantic", "pyarrow", "psutil", "tokenizers", "yaml"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is not to be had')\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result == json.loads(out.read_text())
    assert list(result["parts"]) == ["train tiny", "parity", "peer tiny", "resume tiny", "sampling tiny"]
    assert '"error"' not in done.stdout
    found = result["figures"]["tiny"]
    for figure in ("tokens_per_second", "tokens_per_second_uncompiled", "share_of_matmul_rate", "images_per_second_eager"):
        assert found[figure] > 0
    assert result["figures"]["flex_agrees"] == {"float32": True, "bfloat16": True}
    train = result["parts"]["train tiny"]
    for form in ("compiled", "compiled_bfloat16_hidden_states"):
        assert len(train[form]["seconds_a_step"]) == TOY.repeats
        # On a CPU attention under the dense mask, which some layouts take, may leave its output in another order.
        assert train[form]["graphs_compiled_while_measured"] <= 1 and train[form]["graphs_compiled_by_validation"] == 0
        assert train[form]["losses"] == pytest.approx(train["eager"]["losses"], rel=0.02)
    resumed = result["parts"]["resume tiny"]
    assert (resumed["killed_with_code"], resumed["resumed_from"], resumed["steps"]) == (-signal.SIGKILL, 2, 4)
    assert resumed["steps_that_differ"] == result["figures"]["resumed_steps_that_differ"] == 0


def test_a_document_is_laid_out_as_the_packer_has_it(seed: int) -> None:
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    config = configuration(TOY, "tiny")
    documents = [make_document(each, TOY.vocab_size, generator) for each in plan_row(rng, TOY.row_length, TOY.grid)]
    for document in documents:
        found, wanted = batch_of([[document]], config, TOY.row_length), packed_batch([document], config, TOY.row_length)
        assert found.latents[0].grids == wanted.latents[0].grids
        for one, other in zip(
            (*found[:4], *found[5:], *found.latents[0][:5]), (*wanted[:4], *wanted[5:], *wanted.latents[0][:5]), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_document_has_its_texts_and_images_between_its_markers(seed: int) -> None:
    """By the definition, one position at a time."""
    generator, config = torch.Generator().manual_seed(seed), configuration(TOY, "tiny")
    text, image, more = make_document((5, TOY.grid, 3), TOY.vocab_size, generator)
    batch = batch_of([[[text, image, more]]], config, TOY.row_length)
    size, bos, eos = image.shape[0] * image.shape[1], config.bos_token_id, config.eos_token_id
    begin, pad = 6, [config.pad_token_id]
    ids = [bos, *text.tolist(), config.image.begin_token_id, *pad * size, config.image.end_token_id, *more.tolist(), eos]
    assert batch.input_ids[0].tolist() == ids + pad * (TOY.row_length - len(ids))
    assert batch.latents[0].patch_positions.tolist() == list(range(begin + 1, begin + 1 + size))
    torch.testing.assert_close(batch.latents[0].patches, image.flatten(0, 1), rtol=0, atol=0)
    # Every id is predicted but the first, the begin of the image's patches and what follows an image's begin.
    assert batch.labels.tolist() == [*text.tolist(), config.image.begin_token_id, *more.tolist(), eos]
    assert num_positions((5, TOY.grid, 3)) == len(ids)


def test_a_row_is_its_documents_one_after_the_other(seed: int) -> None:
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    config = configuration(TOY, "tiny")
    rows = [
        [make_document(each, TOY.vocab_size, generator) for each in plan_row(rng, TOY.row_length, TOY.grid)] for _ in range(3)
    ]
    batch = batch_of(rows, config, TOY.row_length)
    for row, documents in enumerate(rows):
        start = 0
        for document in documents:
            alone = batch_of([[document]], config, TOY.row_length)
            size = int((alone.position_ids.argmax() + 1).item())
            here = slice(start, start + size)
            torch.testing.assert_close(batch.input_ids[row, here], alone.input_ids[0, :size])
            torch.testing.assert_close(batch.position_ids[row, here], alone.position_ids[0, :size])
            torch.testing.assert_close(batch.kv_start[row, here] - start, alone.kv_start[0, :size])
            torch.testing.assert_close(batch.kv_end[row, here] - start, alone.kv_end[0, :size])
            start += size
        assert TOY.row_length - start < 3
    singles = [batch_of([[document]], config, TOY.row_length) for documents in rows for document in documents]
    torch.testing.assert_close(batch.labels, torch.cat([each.labels for each in singles]))
    torch.testing.assert_close(batch.after_image, torch.cat([each.after_image for each in singles]))


def test_rows_of_the_full_work_are_full_and_half_images(seed: int) -> None:
    rng = random.Random(seed)
    rows = [plan_row(rng, FULL.row_length, FULL.grid) for _ in range(200)]
    assert all(FULL.row_length - 3 < sum(map(num_positions, row)) <= FULL.row_length for row in rows)
    num_images = sum(isinstance(part, tuple) for row in rows for each in row for part in each)
    assert num_images * 256 / (200 * FULL.row_length) == pytest.approx(0.5, abs=0.03)


def test_positions_are_tokens_and_markers_and_no_padding() -> None:
    rows = MadeUpRows(TOY, 3)
    plans = [
        [plan for _ in range(3) for plan in plan_row(rng, TOY.row_length, TOY.grid)] for rng in map(random.Random, range(12))
    ]
    tokens, positions = (sum(count(plan) for each in plans for plan in each) for count in (num_tokens, num_positions))
    assert rows.tokens_a_position() == pytest.approx(tokens / positions)
    batches = [rows.batch(range(3), step=step) for step in range(1, 13)]
    assert {int(batch.used(SPECIAL_IDS["pad"]).sum()) for batch in batches} == {sum(map(num_positions, each)) for each in plans}


def test_every_part_has_its_share_of_the_time_that_is_left() -> None:
    planned = [("train", "a"), ("train", "b"), ("parity", "a"), ("sampling", "a")]
    now = time.monotonic()
    assert share_of(planned, now + 100) - now == pytest.approx(30, abs=0.5)
    assert share_of(planned[3:], now + 100) - now == pytest.approx(100, abs=0.5)


def test_random_layouts_are_documents_and_images_within_them(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        first, last = random_layout(rng, 2, 150)
        at = torch.arange(150)
        assert ((first <= at) & (at <= last) & (last < 150)).all()
        assert (first.gather(1, last.long()) == first).all()
        assert (last.gather(1, last.long()) == last).all()
        assert (first.gather(1, first.long()) == first).all()


def test_a_part_that_fails_is_reported_and_costs_no_other() -> None:
    failed = run_part("train", "no such preset", toy=True, end=time.monotonic() + 600)
    assert failed["error"].startswith("ended with code 1")
    late = run_part("train", "tiny", toy=True, end=time.monotonic())
    assert late["error"] == "not run: no time left"
    parts = {
        "machine": {"matmul_flops_per_second": 500e12},
        "resume a": {"steps_that_differ": 0, "waits_in_a_step": ["a copy"]},
        "train a": {"compiled": {"tokens_per_second": 300.0, "flops_per_second": 400e12}},
        "peer a": {"flex": {"error": "some"}, "plain": {"tokens_per_second": 60.0}},
        "train b": failed,
    }
    found = figures(parts)
    assert found["a"]["mfu"] == pytest.approx(400 / 989, abs=1e-4)
    assert found["a"]["share_of_matmul_rate"] == 0.8
    assert found["a"]["times_peer"] == 5.0
    assert (found["resumed_steps_that_differ"], found["waits_in_a_step"]) == (0, 1)
    assert all(value is None for value in found["b"].values())


def test_every_preset_is_measured_and_parity_once() -> None:
    assert plan(("sampling", "resume", "parity", "train"), ["a", "b"]) == [
        ("train", "a"),
        ("train", "b"),
        ("parity", "a"),
        ("resume", "a"),
        ("sampling", "a"),
        ("sampling", "b"),
    ]
