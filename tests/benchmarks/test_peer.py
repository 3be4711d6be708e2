"""The comparison measures what it says: equal work, laid out by the definition, and ratios the right way up."""

from __future__ import annotations

import json
import os
import random
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.packed_batch import packed_batch
from benchmarks.peer import __main__ as peer
from benchmarks.peer.ours import BEGIN_IMAGE, BOS, END_IMAGE, EOS, PAD, TILE, config_of, num_parameters, widened
from benchmarks.peer.work import EXTRA, FIGURES, FULL, GROUPS, QUICK, Work, count_positions, make_documents, ragged
from benchmarks.peer.worker import Worker
from model.attention.visibility import visible

ROOT = Path(__file__).resolve().parents[2]


def _ours() -> Worker:
    command = [sys.executable, "-m", "benchmarks.peer.ours", "--quick", "--threads", "1"]
    return Worker(command, folder=ROOT, environment={**os.environ, "OMP_NUM_THREADS": "1"})


def test_our_side_against_itself_gives_every_figure() -> None:
    """The whole command but the peer: two processes of our side, asked what both sides are asked."""
    with _ours() as ours, _ours() as also_ours:
        # Processes that serve every group in turn, which the command starts anew for each.
        sides = {"ours": ours, "theirs": also_ours}
        result = peer.compare(lambda: nullcontext(sides), GROUPS, rounds=1, num_threads=1)
    for name in FIGURES:
        assert result[name] > 0, name
    assert result["matmul_share"] < 1
    assert result["parameters"]["ours"] == result["parameters"]["theirs"] == result["parameters"]["ours_same_params"]
    expected = 2 * QUICK.image.num_prompts * QUICK.image.evaluations
    assert result["raw"]["image"]["ours"]["rows_evaluated"] == expected
    assert result["raw"]["train_ragged"]["ours"]["tokens"] == count_positions(QUICK, "ragged")
    assert result["raw"]["text"]["ours"]["tokens"] == QUICK.text.num_rows * QUICK.text.new_tokens
    json.dumps(result)


def test_the_command_without_the_peer_ends_in_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "peer.json"

    def run(only: str) -> dict[str, Any]:
        assert peer.main(["--quick", "--ours-only", "--threads", "1", "--out", str(out), "--only", only]) == 0
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert last == json.loads(out.read_text())
        return last

    assert run("train_ragged")["train_ragged"] is None
    both = run("text")
    assert {"train_ragged", "text"} <= both.keys() and {"train_ragged", "text"} <= both["raw"].keys()


def test_a_ratio_is_the_median_rate_of_ours_over_theirs() -> None:
    seconds = {"ours": [1.0, 9.0, 2.0], "theirs": [8.0, 40.0, 8.0]}
    raw: peer.Raw = {"text": {side: [{"seconds": each, "tokens": 100} for each in times] for side, times in seconds.items()}}
    for side in ("ours", "theirs"):
        raw["text"][f"{side}_fp32"] = [{"seconds": 5.0, "tokens": 100}]
    # The peer's better precision is float32 here, whatever ours is.
    assert peer.figures(raw) == {"text": 4.0, "text_fp32": 1.0, "text_against_peers_best": 2.5}
    assert peer.spread(raw["text"]["ours"])["tokens_per_second"] == 50.0


def test_unequal_numbers_of_evaluations_are_refused() -> None:
    raw: peer.Raw = {
        "image": {
            "ours": [{"seconds": 1.0, "images": 4, "rows_evaluated": 136}],
            "theirs": [{"seconds": 1.0, "images": 4, "rows_evaluated": 144}],
        }
    }
    with pytest.raises(RuntimeError, match="unequal"):
        peer.figures(raw)


def test_figures_of_another_machine_are_not_kept_beside_new_ones() -> None:
    old = {"text": 3.0, "image": 2.0, "raw": {"text": 1, "image": 1}, "machine": "a", "work": 1, "parameters": 1}
    new = {"text": 4.0, "raw": {"text": 2}, "machine": "a", "work": 1, "parameters": 1}
    assert peer.merged(old, new) == {**new, "image": 2.0, "raw": {"text": 2, "image": 1}}
    assert peer.merged({**old, "machine": "b"}, new) == new


def test_every_figure_names_series_of_its_group() -> None:
    for figure in FIGURES.values():
        assert {figure.above, *figure.below} <= GROUPS[figure.group].keys()
    assert set(EXTRA) <= FIGURES.keys()


def test_work_s_is_what_the_readme_says() -> None:
    assert count_positions(FULL, "equal") == 4 * (64 + 16 * 16)
    lengths = [
        sum(part if isinstance(part, int) else part[0] * part[1] for part in document) for document in FULL.documents["ragged"]
    ]
    assert min(lengths) == 16 and max(lengths) == 1024
    assert sum(lengths) / len(lengths) == 520
    assert FULL.image.evaluations >= 18


@pytest.mark.parametrize("work", [QUICK, FULL])
@pytest.mark.parametrize("parameters", [200_000, 30_000_000, 90_464_624])
def test_the_model_of_equal_parameters_is_the_smallest_that_is_not_smaller(work: Work, parameters: int) -> None:
    config = widened(work.size, parameters)
    least = config.hidden_size == work.size.hidden_size
    assert num_parameters(config) >= parameters
    if not least:
        assert (
            num_parameters(config_of(work.size._replace(hidden_size=config.hidden_size - 16 * work.size.num_attention_heads)))
            < parameters
        )
        assert num_parameters(replace(config, intermediate_size=config.intermediate_size - TILE)) < parameters


def test_documents_are_laid_out_by_the_definition() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    work = QUICK._replace(documents={"here": ragged(3, rng.randrange(20, 90), rng.randrange(2, 7), (rng.randrange(1, 5), 3))})
    documents, config = make_documents(work, "here"), config_of(work.size)
    batch = packed_batch(documents, config, 160)
    ids, flat_rows = batch.input_ids.flatten(), batch.input_ids.shape[1]
    mask = visible(batch.kv_start, batch.kv_end, flat_rows)
    # Documents may stand in any row and order; each is found by its words, which are random and long enough to differ.
    for document in documents:
        expected: list[int] = [BOS]
        patch_of: dict[int, tuple[torch.Tensor, int, int]] = {}
        for segment in document:
            if segment.is_floating_point():
                start, size = len(expected) + 1, segment.shape[0] * segment.shape[1]
                patch_of |= {start + i: (segment.flatten(0, 1)[i], start, start + size) for i in range(size)}
                expected += [BEGIN_IMAGE, *[PAD] * size, END_IMAGE]
            else:
                expected += segment.tolist()
        expected.append(EOS)
        wanted = torch.tensor(expected)
        at = next(i for i in range(len(ids)) if torch.equal(ids[i : i + len(wanted)], wanted))
        row, column = divmod(at, flat_rows)
        for offset, token in enumerate(expected):
            end = patch_of[offset][2] if offset in patch_of else offset + 1
            seen = torch.zeros(flat_rows, dtype=torch.bool)
            seen[column : column + end] = True
            assert torch.equal(mask[row, column + offset], seen)
            assert batch.position_ids[row, column + offset] == offset
            found = (batch.loss_positions == at + offset).nonzero().flatten()
            if offset in patch_of:
                index = (batch.latents[0].patch_positions == at + offset).nonzero().item()
                assert torch.equal(batch.latents[0].patches[index], patch_of[offset][0])  # type: ignore[index]
            if offset in patch_of or token in (BEGIN_IMAGE, EOS):
                assert len(found) == 0
            else:
                assert batch.labels[found].tolist() == [expected[offset + 1]]
                # Behind an image, its text and that text's end: not the end of the document, nor another image, at once.
                is_text = token != END_IMAGE or expected[offset + 1] not in (EOS, BEGIN_IMAGE)
                assert batch.after_image[found].item() == (is_text and any(image < offset for image in patch_of))
    assert len(batch.loss_positions) == sum(
        1
        + sum(len(part) for part in document if not part.is_floating_point())
        + sum(part.is_floating_point() for part in document)
        for document in documents
    )
