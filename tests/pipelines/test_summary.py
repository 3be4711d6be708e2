"""The summary prints the figures that matter with their standard errors, in 100 columns, and what to try next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.evaluation.metrics import HEADLINE
from core.files import read_json, write_json
from core.manifest import write_manifest
from pipelines import paths, summary


def test_the_figures_that_matter_fit_a_log_and_three_commands_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    paths.BUNDLE.mkdir(parents=True)
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


def test_the_guidance_used_is_named_and_a_better_one_where_the_sweep_found_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(summary, "places", lambda: iter([]))
    report, frechet = paths.REPORTS / "evaluate", {"1": 8.8, "4": 13.1}
    write_json(report / "metrics.json", {f"guidance/frechet/{scale}": value for scale, value in frechet.items()})
    write_manifest(report, kind="evaluation", names=["metrics.json"], facts={"guidance": {"scale_used": 4.0}})
    for width, said in (
        (1, "evaluate.guidance_scale 4: pictures are nearer to real ones at 1 (Frechet 8.8 instead of 13.1)"),
        (3, "Pictures were drawn with evaluate.guidance_scale 4; no other scale is shown to be better."),
    ):
        ends = {f"guidance/frechet/{scale}": {"low": value - width, "high": value + width} for scale, value in frechet.items()}
        write_json(report / "intervals.json", ends)
        summary.print_results([])
        lines = capsys.readouterr().out.splitlines()
        assert said in lines and max(map(len, lines)) <= summary.WIDTH


def test_a_picture_is_asked_for_by_a_prompt_of_the_corpus_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths.BUNDLE.mkdir(parents=True)
    image, text = {"image/diffusion_loss": 0.1}, {"text/bits_per_byte": 2.0}
    assert "python -m export.ask 'a cat' -o picture.png" in summary.to_try(image, ["a cat"])
    for metrics, prompts in ((text, ["a cat"]), (image, [])):
        assert [command.split()[0] for command in summary.to_try(metrics, prompts)] == ["make", "dvc"]


def test_without_sample_prompts_the_example_requests_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert summary.requested() == []
    requests = [{"id": "1", "task": "image_to_text", "image": "1.png"}, {"id": "2", "task": "text_to_image", "prompt": "a cat"}]
    paths.REQUESTS.mkdir(parents=True)
    (paths.REQUESTS / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests))
    assert summary.requested() == ["a cat"]


def test_a_clone_in_which_nothing_ran_says_so_and_names_what_makes_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("evaluate/metrics.json", "export/parity.json", "register/version.json"):
        write_json(paths.REPORTS / name, read_json(Path(__file__).parents[2] / "reports" / name))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    summary.print_results(["a red three top left"])
    said = capsys.readouterr().out
    assert said.startswith("There is no finished model in this folder yet")
    assert "export.ask" not in said and "MLflow" not in said and "  make repro  " in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@tracking.example.org")
    summary.print_results([])
    assert "MLflow  https://tracking.example.org\n" in capsys.readouterr().out
