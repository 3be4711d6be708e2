"""GenEval's prompts by the command: the folders that its scorer walks, and a run that was interrupted goes on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from export.ask import open_model
from export.geneval import main
from export.run.requests import Prompt
from tests.export.conftest import Made

LINES: list[dict[str, Any]] = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a red three top left"},
    {
        "tag": "counting",
        "include": [{"class": "cup", "count": 2}],
        "exclude": [{"class": "cup", "count": 3}],
        "prompt": "Ü é 7",
    },
]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in LINES))
    return path


def scored(out: Path) -> dict[tuple[str, int], list[bytes]]:
    """What evaluation/evaluate_images.py of GenEval would read: by prompt and folder its pictures."""
    found = {}
    for folder in sorted(path for path in out.iterdir() if path.is_dir() and path.name.isdigit()):
        metadata = json.loads((folder / "metadata.jsonl").read_text())
        names = sorted(path.name for path in (folder / "samples").iterdir())
        assert all(re.match(r"\d+\.png", name) for name in names)
        assert metadata == LINES[int(folder.name)]
        found[metadata["prompt"], int(folder.name)] = [(folder / "samples" / name).read_bytes() for name in names]
    return found


def test_the_scorer_finds_every_picture_and_a_second_run_draws_what_is_missing(
    made: Made, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, model = tmp_path / "out", str(made.bundle.folder)
    call = ["--prompts", str(prompts), "-o", str(out), "--model", model, "--batch-size", "3", "--seed", "4"]
    assert main([*call, "--samples", "2"]) == 0
    first = scored(out)
    assert [(*key, len(pictures)) for key, pictures in first.items()] == [
        (LINES[0]["prompt"], 0, 2),
        (LINES[1]["prompt"], 1, 2),
    ]
    assert len({picture for pictures in first.values() for picture in pictures}) == 4
    predictor = open_model(model)
    alone = predictor.predict([Prompt("00001/0001", "text_to_image", LINES[1]["prompt"])], predictor.options(seed=4))
    assert alone[0].image_png == first[LINES[1]["prompt"], 1][1]

    kept, lost = out / "00000/samples/0001.png", out / "00001/samples/0000.png"
    kept.write_bytes(b"as it was")
    lost.unlink()
    capsys.readouterr()
    assert main([*call, "--samples", "3"]) == 0
    assert "6 pictures of 2 prompts, 3 of them from before" in capsys.readouterr().out
    assert kept.read_bytes() == b"as it was"
    assert lost.read_bytes() == first[LINES[1]["prompt"], 1][0]
    assert [len(pictures) for pictures in scored(out).values()] == [3, 3]

    # The scorer would count whatever else lies there.
    assert main([*call, "--samples", "2"]) == 1
    assert f"{out / '00000/samples/0002.png'} is none of the 2 prompts with 2 samples each" in capsys.readouterr().err
    (out / "00002").mkdir()
    assert main([*call, "--samples", "3"]) == 1
    assert f"{out / '00002'} is none of the 2 prompts with 3 samples each" in capsys.readouterr().err
    (out / "00002").rmdir()

    # Pictures of two settings, or of two files of prompts, must not be scored as one model's.
    assert main([*call, "--num-solver-steps", "2"]) == 1
    assert "drawn_with.json says that the pictures there are of other prompts or drawn otherwise" in capsys.readouterr().err
    prompts.write_text(json.dumps(LINES[1]) + "\n")
    assert main(call) == 1
    assert "00000/metadata.jsonl says" in capsys.readouterr().err
    (out / "drawn_with.json").write_bytes(b"\xff\xfe")
    assert main(call) == 1
    assert "drawn_with.json says" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"prompt": "a"}\n\n{"prompt": "b"}\n', ":2 is no prompt of GenEval's"),
        ('{"prompt": " "}\n', ":1 is no prompt of GenEval's"),
        ("[]\n", ":1 is no prompt of GenEval's"),
        ("", "holds no prompt"),
        (json.dumps({"prompt": "word " * 200}), "1 of 1 pictures were not drawn"),
    ],
)
def test_what_the_scorer_could_not_count_is_one_sentence(
    made: Made, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    prompts.write_text(text)
    call = ["--prompts", str(prompts), "-o", str(tmp_path / "out"), "--samples", "1", "--model", str(made.bundle.folder)]
    assert main(call) == 1
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1
