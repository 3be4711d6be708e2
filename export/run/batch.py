"""A batch of request lines answered in one process: a predictor opened once, called with one batch after another.

Items and results are plain JSON values, so that a cluster can carry them; pictures are written where they are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from core.files import named
from export.config import InferConfig, PredictOptions
from export.run.answers import Answer
from export.run.journal import ENGINE, SEEN, Record
from export.run.picture_files import fingerprint
from export.run.predictions import IMAGES
from export.run.predictor import Predictor
from export.run.requests import TASKS, Prompt

# How often a request may end the process that answers it. Not once, for a process may be ended by what is no request's
# fault: another program that takes the memory, a machine that is taken away.
MAX_TRIES = 3


def batches(lines: Sequence[Prompt], batch_size: int) -> Iterator[dict[str, Any]]:
    """Items for `BatchActor`: batches of one task each, of batch_size lines at most."""
    for task in sorted(TASKS):
        members = [line for line in lines if line.task == task]
        for start in range(0, len(members), batch_size):
            yield {"lines": members[start : start + batch_size], "tries": 0}


def after_death(item: dict[str, Any], *, requests_folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """What becomes of a batch whose process ended in it: (items to try in its place, the result of one given up).

    A batch is tried again line by line, so that no line but the one to blame is given up. requests_folder: where image paths
    start. A picture is looked at before each of these tries, as `BatchActor` does, so that the next run knows whether the
    line given up is still the same.
    """

    def alone(line: Prompt, tries: int) -> dict[str, Any]:
        return {"lines": [line], "tries": tries, "seen": fingerprint(requests_folder, line.image_name)}

    if len(item["lines"]) > 1:
        return [alone(line, 0) for line in item["lines"]], None
    (line,), tries = item["lines"], item["tries"] + 1
    if tries < MAX_TRIES:
        return [alone(line, tries)], None
    error = f"ended the process that answered it {tries} times (a crash, or more memory than there is)"
    return [], {"answers": [_named(line) | {"error": error, SEEN: item["seen"]}], "passed_over": []}


def actor_settings(bundle: Path, engines: Path, config: InferConfig, folder: Path) -> dict[str, Any]:
    """BatchActor's arguments, every path absolute, for a worker's working directory is another one."""
    return {
        "bundle": str(bundle.absolute()),
        "engine": config.engine,
        "engines": str(engines.absolute()),
        "options": config,
        "requests_folder": str(Path(config.requests).parent.absolute()),
        "folder": str(folder.absolute()),
    }


class BatchActor:
    """Answers batches.

    engine: as `open_engine` takes it. requests_folder: where image paths start. folder: pictures go into its images/.
    """

    def __init__(
        self, *, bundle: str, engine: str, engines: str, options: PredictOptions, requests_folder: str, folder: str
    ) -> None:
        self.predictor = Predictor.open(Path(bundle), engine=engine, engines=Path(engines))
        self.options = options
        self.requests_folder, self.images = Path(requests_folder), Path(folder) / IMAGES

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """{"lines": [...]} -> {"answers": [...] in the same order, "passed_over": why this is not a better engine}.

        A request's failure is its answer; an OSError is of the folder that pictures go into.
        """
        lines = [Prompt(*line) for line in item["lines"]]
        seen = [fingerprint(self.requests_folder, line.image_name) for line in lines]
        answers = self.predictor.answer(lines, self.options, folder=self.requests_folder)
        records = [
            self._record(line, answer) | {SEEN: stamp, ENGINE: self.predictor.opened.name}
            for line, answer, stamp in zip(lines, answers, seen, strict=True)
        ]
        return {"answers": records, "passed_over": self.predictor.opened.passed_over}

    def _record(self, line: Prompt, answer: Answer) -> Record:
        if answer.error:
            return _named(line) | {"error": answer.error}
        if not answer.image_png:
            return _named(line) | {"generated_text": answer.text, "num_tokens": answer.num_tokens}
        # Ids are anything users write, so the file is named by the line.
        name = f"{line.line:06d}.png"
        # Not before: a process that is still starting when all is answered must not make the folder anew.
        self.images.mkdir(parents=True, exist_ok=True)
        with named(self.images / name):
            (self.images / name).write_bytes(answer.image_png)
        return _named(line) | {"generated_image": f"{IMAGES}/{name}", "image_bytes": len(answer.image_png)}


def _named(line: Prompt) -> Record:
    return {"line": line.line, "id": line.id, "task": line.task}
