"""Values of a file go into params.yaml, where all else stays as it stood; what cannot be used changes nothing."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

import pytest

from pipelines.configure import configure
from pipelines.params import ParamsError, load

PARAMS = Path(__file__).parents[2] / "params.yaml"
WANTED = """\
ingest:
  image_side_px: 64
  images: {background: white}
  corpora:
    - {name: mine, format: image_folder, path: my pictures}
train:
  batch_rows: 6
  sampling: {prompts: []}
register:
  default_bounds: {}
"""


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copyfile(PARAMS, tmp_path / "params.yaml"))


def wanted(params: Path, text: str) -> Path:
    file = params.with_name("mine.yaml")
    file.write_text(text)
    return file


def test_what_the_file_holds_changes_and_nothing_else(params: Path) -> None:
    changed = configure(params, wanted(params, WANTED))
    assert set(changed) == {
        "ingest.image_side_px",
        "ingest.images.background",
        "ingest.corpora",
        "train.sampling.prompts",
        "register.default_bounds",
    }
    assert changed["ingest.image_side_px"] == (32, 64)
    loaded = load(params)
    assert [(corpus.name, corpus.path) for corpus in loaded.ingest.corpora] == [("mine", "my pictures")]
    assert loaded.register.default_bounds == {} and loaded.train.sampling.prompts == ()
    lines = difflib.ndiff(PARAMS.read_text().splitlines(), params.read_text().splitlines())
    touched = {line[2:].strip() for line in lines if line[0] in "+-"}
    assert touched == {
        *("image_side_px: 32", "image_side_px: 64", "background: black", "background: white"),
        '- {name: scenes, format: digit_scenes, path: "", weight: 2.0}',
        '- {name: prose, format: python_prose, path: ""}',
        "- {name: mine, format: image_folder, path: my pictures}",
        *("prompts:", "prompts: []", *(f"- {prompt}" for prompt in load(PARAMS).train.sampling.prompts)),
        *("default_bounds:", "default_bounds: {}"),
        *(f"{name}: {bound}" for name, bound in load(PARAMS).register.default_bounds.items()),
    }
    assert configure(params, wanted(params, WANTED)) == {}, "a second time nothing is left to change"


def test_a_mapping_of_metrics_takes_new_ones(params: Path) -> None:
    own = "register:\n  bounds: {text/bits_per_byte: 3.0}\n  default_bounds: {image/x0_error/0.5: 0.2}\n"
    changed = configure(params, wanted(params, own))
    assert changed == {
        "register.bounds.text/bits_per_byte": (None, 3.0),
        "register.default_bounds.image/x0_error/0.5": (0.3, 0.2),
    }
    bounds = load(params).register
    assert bounds.bounds == {"text/bits_per_byte": 3.0}
    assert bounds.default_bounds == load(PARAMS).register.default_bounds | {"image/x0_error/0.5": 0.2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ingest: {image_side: 64}", "params.yaml has no key ingest.image_side"),
        ("ingest: {image_side_px: many}", "ingest.image_side_px = 'many'"),
        ("ingest: {image_side_px: 33}", "33"),
        ("ingest: {image_side_px: 64", "is not YAML"),
        ("train:\n  seed: 1\n  seed: 2\n", "has train.seed twice, in line 2 and in line 3"),
        ("- a list", "holds no sections of params.yaml"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_changes_nothing(params: Path, text: str, said: str) -> None:
    before = params.read_bytes()
    with pytest.raises(ParamsError) as refused:
        configure(params, wanted(params, text))
    sentence = str(refused.value)
    assert said in sentence and str(params.with_name("mine.yaml")) in sentence and "\n" not in sentence
    assert params.read_bytes() == before
    with pytest.raises(ParamsError, match="is missing"):
        configure(params, params.with_name("none.yaml"))
