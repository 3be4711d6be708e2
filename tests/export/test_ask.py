"""One prompt by the command line and in Python: the answer is the predictor's, and what cannot be is one sentence."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.errors import BadPrompt
from export.ask import main, open_model
from export.run.predictor import Predictor
from export.run.requests import Prompt
from tests.export.conftest import EVALUATED, Made, png

WORDS = "a red three top left"


@pytest.fixture(scope="module")
def predictor(made: Made) -> Predictor:
    return open_model(made.bundle.folder)


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture in the working directory, by a link out of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/given.png").write_bytes(png(20, 30))
    Path("given.png").symlink_to("elsewhere/given.png")
    return Path("given.png")


def test_every_task_is_answered(made: Made, predictor: Predictor, given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = ["--model", str(made.bundle.folder)], given.read_bytes()
    assert main([WORDS, "-o", "three.png", *model]) == 0
    sampling = EVALUATED.sampling
    how = f"guidance {sampling.guidance_scale:g}, {sampling.num_steps} steps of {sampling.solver}, seed 0, onnxruntime"
    assert capsys.readouterr().out == f"three.png ({how})\n"
    asked = [
        Prompt("1", "text_to_image", WORDS),
        Prompt("1", "image_to_image", "make it blue", data),
        Prompt("1", "image_to_text", image=data),
        Prompt("1", "text", "Return the"),
    ]
    drawn, changed, described, continued = (predictor.predict([prompt])[0] for prompt in asked)
    assert Path("three.png").read_bytes() == drawn.image_png
    assert main(["make it blue", "--image", "given.png", *model]) == 0
    assert Path("picture.png").read_bytes() == changed.image_png
    capsys.readouterr()
    assert main(["--image", "given.png", "-o", "words.txt", *model]) == 0
    assert capsys.readouterr().out == Path("words.txt").read_text() == described.text + "\n"
    assert main(["Return the", "--task", "text", *model]) == 0
    assert capsys.readouterr().out == continued.text + "\n"


def test_what_is_chosen_reaches_the_answer(made: Made, predictor: Predictor, tmp_path: Path) -> None:
    """By the command and in Python alike."""
    choices: tuple[dict[str, Any], ...] = ({"seed": 1}, {"guidance_scale": 1.0}, {"num_solver_steps": 1}, {"seed": 0})
    for number, chosen in enumerate(choices):
        line = [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()]
        path = tmp_path / f"{number}.png"
        assert main([WORDS, "-o", str(path), "--model", str(made.bundle.folder), *line]) == 0
        assert path.read_bytes() == predictor.ask(WORDS, **chosen).image_png
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 4
    assert len(predictor.ask("Return", task="text", max_new_tokens=3).text) < len(predictor.ask("Return", task="text").text)


def test_a_list_of_words_asks_for_as_many_pictures(predictor: Predictor) -> None:
    answers = predictor.predict([WORDS, WORDS, ""])
    assert [answer.id for answer in answers] == ["1", "2", "3"]
    assert [Image.open(io.BytesIO(answer.image_png)).size for answer in answers[:2]] == [(16, 16)] * 2
    assert answers[0].image_png != answers[1].image_png
    assert answers[2].error == "prompt is empty"


COMMANDS = [
    ([], 2, "give a prompt, or --image FILE"),
    ([" "], 2, "give a prompt, or --image FILE"),
    (["--task", "text"], 2, "give the words of the prompt, in quotes; text needs them"),
    (["a", "--task", "image_to_text"], 2, "give --image FILE; image_to_text needs it"),
    (["a", "--task", "sing"], 2, "--task 'sing' is not one of text_to_image, "),
    (["a", "-o", "three.jpg"], 2, "-o three.jpg: pictures are PNG files"),
    (["a", "--num-solver-steps", "0"], 2, "num_solver_steps: 0 must be a whole number from 1 to 10000"),
    (["a", "--guidance-scale", "nan"], 2, "guidance_scale: nan must be a number greater than 0"),
    (["a", "red", "three", "-o", "three.png"], 2, 'put the prompt in quotes: "a red three"'),
    (["a", "--sed", "x", "b"], 2, "there is no option --sed; --help lists them"),
    (["a", "--seed", "x"], 2, "invalid int value: 'x'"),
    (["a", "--model", "nowhere"], 1, "ask: there is no bundle at "),
    (["a", "--model", "models:/transfusion@champion"], 1, "ask: there is no mlflow.db in "),
    (["a", "--engine", "abacus"], 1, "ask: engine 'abacus' is not one of auto, "),
    (["a " * 200], 1, "ask: prompt"),
    (["--image", "missing.png"], 1, "ask: image 'missing.png' is missing"),
    (["--image", "."], 1, "is not a file"),
    (["a", "-o", "given.png/three.png"], 1, "ask: given.png cannot be used (File exists)"),
]


@pytest.mark.parametrize(("line", "code", "said"), COMMANDS, ids=lambda value: str(value)[:40])
def test_what_cannot_be_asked_is_one_sentence(
    made: Made,
    given: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    line: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    line = line if "--model" in line else [*line, "--model", str(made.bundle.folder)]
    if code == 2:
        with pytest.raises(SystemExit) as ended:
            main(line)
        assert ended.value.code == 2
    else:
        assert main(line) == code
    output = capsys.readouterr()
    assert said in output.err and "Traceback" not in output.err and not output.out
    assert len(output.err.splitlines()) == 1 or code == 2
    assert {path.name for path in Path().iterdir()} == {"elsewhere", "given.png"}


def test_an_answer_that_there_is_not_is_an_error(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(BadPrompt, match="shorten the prompt"):
        predictor.ask("a " * 200)
    (answer,) = predictor.predict(["a " * 200])
    with pytest.raises(BadPrompt, match="shorten the prompt"):
        answer.save(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"^guidance is no option"):
        predictor.ask("a", guidance=2)
    assert not list(tmp_path.iterdir())
