"""Does wrong input in params.yaml get one clear sentence and exit code 2, before any work?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.params import ParamsError, load

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / "params.yaml"


def test_the_committed_parameters_are_valid() -> None:
    assert load(PARAMS).train.model.preset == "demo"


CORPUS = (
    "name: a, format: jsonl, captions: each, caption_per_line: false, caption_first_share: 0.8, max_documents: 0, weight: 1.0"
)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.max_step=3", ["train.max_step"]),
        ("train.max_steps=abc", ["train.max_steps", "'abc'", "integer"]),
        ("train.max_steps=1.5", ["train.max_steps", "1.5", "integer"]),
        ("train.max_steps='12'", ["train.max_steps", "'12'", "integer"]),
        ("train.max_steps=-1", ["train.max_steps", "-1", "greater than 0"]),
        ("train.warmup_steps=999999", ["train.warmup_steps", "999999"]),
        ("train.model.preset=huge", ["train.model.preset", "'huge'", "'demo'"]),
        ("train.learning_rate=.nan", ["train.learning_rate", "nan"]),
        ("ingest.corpora=[]", ["ingest.corpora", "at least one"]),
        (f"ingest.corpora=[{{{CORPUS}, path: '', images: ''}}]", ["ingest.corpora.0.path", "must name the files"]),
        (f"ingest.corpora=[{{{CORPUS}, path: x, images: y}}]", ["ingest.corpora.0.images", 'must be ""']),
        ("ingest.corpora=[{name: a, format: jsonl, pth: x}]", ["ingest.corpora.0.pth", "did you mean ingest.corpora.0.path"]),
        ("evaluate.loss_times=[2]", ["evaluate.loss_times", "2.0"]),
        ("train={}", ["train.", "is missing"]),
        ("train", ["section.key=value"]),
    ],
)
def test_an_impossible_value_is_named(override: str, parts: list[str]) -> None:
    with pytest.raises(ParamsError) as error:
        load(PARAMS, [override])
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_key_in_the_file_suggests_the_known_one(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text().replace("  max_steps: ", "  max_stps: "))
    with pytest.raises(ParamsError, match=r"max_stps = \d+ is not a known key; did you mean .*max_steps\?"):
        load(path)


def test_overrides_take_yaml_values() -> None:
    params = load(
        PARAMS, ["train.max_steps=7", "train.warmup_steps=1", "train.learning_rate=1e-4", "evaluate.loss_times=[0.5]"]
    )
    assert params.train.max_steps == 7
    assert params.train.learning_rate == 1e-4
    assert params.evaluate.loss_times == (0.5,)


@pytest.mark.parametrize("stage", ["ingest", "train"])
def test_a_stage_exits_2_with_one_sentence_before_any_work(stage: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS.read_text().replace("patch_side: 4", "patch_side: 3"))
    command = [sys.executable, "-m", f"pipelines.{stage}", "--params", str(tmp_path / "params.yaml")]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": ""}
    )
    assert result.returncode == 2, result.stderr
    assert "train.model.patch_side = 3" in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists() and not (tmp_path / "artifacts").exists()
