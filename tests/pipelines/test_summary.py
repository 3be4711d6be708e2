"""The summary prints the figures that matter with their standard errors, in 100 columns, and what to try next."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.evaluation.metrics import HEADLINE
from core.files import write_json
from pipelines import paths, summary


def test_the_figures_that_matter_fit_a_log_and_three_commands_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(summary, "places", lambda: iter([("every figure", "there")]))
    metrics = dict.fromkeys(HEADLINE.values(), 0.96136) | {
        "text_to_image/objects_right_se": 0.0068,
        "image/x0_error/0.98": 0.75,
    }
    write_json(paths.REPORTS / "evaluate" / "metrics.json", metrics)
    prompts = ("a red three top left and a blue seven bottom right", "a red three top left")
    summary.print_results(prompts)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= summary.WIDTH
    assert any("text_to_image/objects_right " in line and "0.961 +- 0.007" in line for line in lines)
    assert all(any(line.startswith(f"{key} ") for line in lines) for key in HEADLINE.values())
    assert not any("_se" in line or "x0_error" in line for line in lines)
    assert any("every figure" in line and "there" in line for line in lines)
    assert [line.split()[0] for line in lines[-3:]] == ["python", "make", "dvc"]
    assert "a red three top left" in lines[-3]
    to_try = summary.to_try(metrics, prompts)
    assert all(len(f"{command:60}  {what}") + 2 <= summary.WIDTH for command, what in to_try.items())


def test_a_picture_is_asked_for_by_a_prompt_of_the_corpus_where_there_is_one() -> None:
    image, text = {"image/diffusion_loss": 0.1}, {"text/bits_per_byte": 2.0}
    assert "python -m export.ask 'a cat' -o picture.png" in summary.to_try(image, ["a cat"])
    for metrics, prompts in ((text, ["a cat"]), (image, [])):
        assert [command.split()[0] for command in summary.to_try(metrics, prompts)] == ["make", "dvc"]
