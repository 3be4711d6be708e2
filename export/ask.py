"""One prompt, answered by a bundle or a registered model: a picture in a file, or words on the screen.

    python -m export.ask "a red three top left" -o three.png
    python -m export.ask "make it blue" --image three.png -o blue.png
    python -m export.ask --image three.png
    python -m export.ask "Return the" --task text

In Python: open_model().ask("a red three top left").save("three.png")

Needs no Ray, DVC or file of requests, and MLflow only for a registered model.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadInput, BadPrompt
from core.text import counted

if TYPE_CHECKING:
    from export.run.predictor import Predictor

# Where the export stage leaves them; engines of TensorRT are a cache of this machine.
BUNDLE, ENGINES = Path("artifacts/bundle"), Path(".work/engines")
PICTURE = Path("picture.png")
OPTIONS = {"guidance_scale": float, "num_solver_steps": int, "max_new_tokens": int, "seed": int}
INTERRUPTED = 130
NEEDED = "what answers needs torch, onnx, onnxruntime, tokenizers, safetensors, pillow and numpy"


def open_model(model: str | Path = BUNDLE, *, engine: str = "auto") -> Predictor:
    """A model that is ready to be asked; raises BadInput where it cannot be opened.

    model: a bundle's folder, or a registered model's MLflow URI (models:/transfusion@champion). engine: as in
    export/run/engines.py.
    """
    from export.run.predictor import Predictor
    from export.run.registered import bundle_folder

    return Predictor.open(bundle_folder(model), engine=engine, engines=ENGINES)


def main(arguments: Sequence[str] | None = None, *, model: Path = BUNDLE, command: str = "python -m export.ask") -> int:
    """Answer the command line's prompt; returns the exit code.

    model: the bundle, where the command line names none. command: how this was called, for its help.
    """
    parser = _parser(model, command)
    asked, others = parser.parse_known_args(arguments)
    if unknown := [other for other in others if other.startswith("-")]:
        parser.error(f"there is no option {unknown[0]}; --help lists them")
    if others:
        parser.error(f'put the prompt in quotes: "{" ".join((asked.prompt, *others))}"')
    chosen = {name: getattr(asked, name) for name in OPTIONS if getattr(asked, name) is not None}
    if problem := _problem(asked, chosen):
        parser.error(problem)
    return exit_code("ask", lambda: _answer(asked, chosen))


def exit_code(name: str, work: Callable[[], None]) -> int:
    """Call `work`; what ends it becomes one sentence and the exit code that it has in every command of this repository."""
    # As a terminal leaves it: what a shell starts in the background ignores interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        work()
    except KeyboardInterrupt:
        return _say(f"{name}: interrupted", INTERRUPTED)
    except (BadInput, BadPrompt) as error:
        return _say(f"{name}: {error}", 1)
    except OSError as error:
        return _say(f"{name}: {error.filename or 'a file'} cannot be used ({error.strerror or error})", 1)
    except ModuleNotFoundError as error:
        return _say(f"{name}: the package {error.name} is not installed here; {NEEDED}", 1)
    return 0


def add_model_options(parser: argparse.ArgumentParser, model: Path) -> None:
    """The options that say what answers."""
    parser.add_argument(
        "--model",
        default=str(model),
        help="a bundle's folder, or an MLflow URI such as models:/transfusion@champion (default: %(default)s)",
    )
    parser.add_argument("--engine", default="auto", help="auto, onnxruntime, tensorrt or torch (default: %(default)s)")


def _parser(model: Path, command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=command, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("prompt", nargs="?", default="", help="the words")
    parser.add_argument("--image", type=Path, metavar="FILE", help="a picture to describe, or to change as the prompt says")
    parser.add_argument("--task", default="", help="text_to_image, image_to_text, image_to_image or text, where it is another")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=f"where the answer goes (a picture's default: {PICTURE})"
    )
    add_model_options(parser, model)
    for name, kind in OPTIONS.items():
        usual = "0" if name == "seed" else "as the model was measured"
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=f"default: {usual}")
    return parser


def _problem(asked: argparse.Namespace, chosen: dict[str, Any]) -> str:
    """What is wrong with a command line, before anything is loaded; "" where nothing is."""
    from export.config import check_options
    from export.run.requests import TASKS, usual_task

    task = asked.task or usual_task(asked.prompt, str(asked.image or ""))
    if task not in TASKS:
        return f"--task {task!r} is not one of {', '.join(TASKS)}"
    if "prompt" in TASKS[task] and not asked.prompt.strip():
        return f"give the words of the prompt, in quotes; {task} needs them" if asked.task else "give a prompt, or --image FILE"
    if "image" in TASKS[task] and not asked.image:
        return f"give --image FILE; {task} needs it"
    if task.endswith("_to_image") and asked.output and asked.output.suffix.lower() != ".png":
        return f"-o {asked.output}: pictures are PNG files; let the name end in .png"
    try:
        check_options(chosen)
    except ValueError as error:
        return str(error)
    return ""


def _answer(asked: argparse.Namespace, chosen: dict[str, Any]) -> None:
    predictor = open_model(asked.model, engine=asked.engine)
    options = predictor.options(**chosen)
    answer = predictor.ask(asked.prompt, image=asked.image or b"", task=asked.task, **chosen)
    if answer.image_png:
        path = asked.output or PICTURE
        answer.save(path)
        steps = counted(options.num_solver_steps, "step")
        how = f"guidance {options.guidance_scale:g}, {steps} of {predictor.bundle.generation.solver}"
        print(f"{path} ({how}, seed {options.seed}, {predictor.opened.name})", flush=True)
        return
    print(answer.text, flush=True)
    if asked.output:
        answer.save(asked.output)


def _say(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
