"""Pictures of GenEval's prompts, in the folders that GenEval's own scorer reads (arXiv 2310.11513).

    python -m export.geneval --prompts geneval/prompts/evaluation_metadata.jsonl -o pictures

<out>/00000/metadata.jsonl       the first line of the file of prompts
<out>/00000/samples/0000.png     and as many more as there are samples
<out>/drawn_with.json            what all of them were drawn with; the scorer does not look at it

Pictures that are there already stay, so that a run that was interrupted goes on. A picture's noise depends on the seed, its
prompt's number and its own alone.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.errors import BadInput
from core.text import counted
from export.ask import BUNDLE, OPTIONS, add_model_options, exit_code, open_model

if TYPE_CHECKING:
    from export.run.predictor import Predictor

FACTS, METADATA, SAMPLES = "drawn_with.json", "metadata.jsonl", "samples"
# What the scorer takes for a picture.
COUNTED = re.compile(r"\d+\.png")
# Each prompt's in the paper.
USUAL_SAMPLES = 4
CHOSEN = {name: kind for name, kind in OPTIONS.items() if name != "max_new_tokens"}


class Asked(NamedTuple):
    """One picture to draw."""

    number: int
    """Of its prompt, from 0."""
    sample: int
    """From 0."""
    prompt: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m export.geneval", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompts", type=Path, required=True, metavar="FILE", help="GenEval's evaluation_metadata.jsonl")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where the pictures go")
    parser.add_argument("--samples", type=int, default=USUAL_SAMPLES, metavar="N", help="a prompt (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="pictures drawn together")
    add_model_options(parser, BUNDLE)
    for name, kind in CHOSEN.items():
        usual = "0" if name == "seed" else "as the model was measured"
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=f"default: {usual}")
    asked = parser.parse_args(arguments)
    chosen = {name: getattr(asked, name) for name in (*CHOSEN, "batch_size") if getattr(asked, name) is not None}
    if problem := _problem(asked, chosen):
        parser.error(problem)
    return exit_code("geneval", lambda: _draw(asked, chosen))


def _problem(asked: argparse.Namespace, chosen: dict[str, Any]) -> str:
    from export.config import check_options

    try:
        check_options(chosen)
    except ValueError as error:
        return str(error)
    return "" if asked.samples >= 1 else f"--samples {asked.samples} must be at least 1"


def _draw(asked: argparse.Namespace, chosen: dict[str, Any]) -> None:
    lines = read_prompts(asked.prompts)
    predictor = open_model(asked.model, engine=asked.engine)
    options = predictor.options(**chosen)
    facts = {
        "engine": predictor.opened.name,
        "guidance_scale": options.guidance_scale,
        "model": _digest(predictor),
        "num_solver_steps": options.num_solver_steps,
        "seed": options.seed,
        "solver": predictor.bundle.generation.solver,
    }
    _lay_out(asked.output, lines, asked.samples, facts)
    pictures = [Asked(number, sample, line["prompt"]) for number, line in enumerate(lines) for sample in range(asked.samples)]
    missing = [picture for picture in pictures if not picture_path(asked.output, picture).is_file()]
    refused = draw(predictor, asked.output, missing, options)
    steps = counted(options.num_solver_steps, "step")
    how = f"guidance {options.guidance_scale:g}, {steps} of {facts['solver']}, seed {options.seed}"
    there = f", {len(pictures) - len(missing)} of them from before" if len(missing) < len(pictures) else ""
    if refused:
        raise BadInput(
            f"{len(refused)} of {len(pictures)} pictures were not drawn, and the scorer would not count them; {refused[0]}"
        )
    print(f"{asked.output}: {len(pictures)} pictures of {len(lines)} prompts{there} ({how}, {facts['engine']})", flush=True)


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of prompts; raises BadInput where one is not an object with a prompt, for folders count lines."""
    lines = []
    for number, text in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict) or not isinstance(line.get("prompt"), str) or not line["prompt"].strip():
            raise BadInput(f'{path}:{number} is no prompt of GenEval\'s; each line is an object {{"tag": ..., "prompt": ...}}')
        lines.append(line)
    if not lines:
        raise BadInput(f"{path} holds no prompt; give GenEval's evaluation_metadata.jsonl")
    return lines


def picture_path(out: Path, picture: Asked) -> Path:
    """Where GenEval's scorer looks for it."""
    return out / f"{picture.number:05}" / SAMPLES / f"{picture.sample:04}.png"


def draw(predictor: Predictor, out: Path, pictures: Sequence[Asked], options: Any) -> list[str]:
    """Draw and write pictures, batch by batch; a sentence for each that could not be drawn."""
    from export.run.requests import Prompt

    refused = []
    for start in range(0, len(pictures), options.batch_size):
        batch = pictures[start : start + options.batch_size]
        prompts = [Prompt(f"{each.number:05}/{each.sample:04}", "text_to_image", each.prompt) for each in batch]
        for picture, answer in zip(batch, predictor.predict(prompts, options), strict=True):
            if answer.error:
                refused.append(f"prompt {picture.number}, sample {picture.sample}: {answer.error}")
            else:
                answer.save(picture_path(out, picture))
    return refused


def _lay_out(out: Path, lines: Sequence[dict[str, Any]], num_samples: int, facts: dict[str, Any]) -> None:
    """Write the folders' metadata; raises BadInput where pictures of other prompts or of another model are there, or more."""
    from core.files import json_text, write_text

    texts = {out / FACTS: json_text(facts)}
    texts |= {out / f"{number:05}" / METADATA: json.dumps(line) + "\n" for number, line in enumerate(lines)}
    for path, text in texts.items():
        if path.is_file() and path.read_bytes() != text.encode():
            raise BadInput(
                f"{path} says that the pictures there are of other prompts or drawn otherwise; give another folder with -o"
            )
    _refuse_others(out, len(lines), num_samples)
    for path, text in texts.items():
        if not path.is_file():
            write_text(path, text)


def _refuse_others(out: Path, num_prompts: int, num_samples: int) -> None:
    """Raise BadInput where the scorer would count more than was asked for: it takes whatever its two patterns fit."""
    folders = {f"{number:05}" for number in range(num_prompts)}
    samples = {f"{sample:04}.png" for sample in range(num_samples)}
    numbered = [path for path in out.glob("*") if path.is_dir() and path.name.isdigit()]
    pictures = [path for path in out.glob(f"*/{SAMPLES}/*") if COUNTED.match(path.name) and path.name not in samples]
    others = [path for path in numbered if path.name not in folders]
    others += [path for path in pictures if path.parents[1] in numbered]
    if others:
        asked = f"{num_prompts} prompts with {num_samples} samples each"
        raise BadInput(
            f"{min(others)} is none of the {asked}, and the scorer would count it; delete it or give another folder with -o"
        )


def _digest(predictor: Predictor) -> str:
    from export.bundle import bundle_digest

    return bundle_digest(predictor.bundle.manifest)


if __name__ == "__main__":
    sys.exit(main())
