"""How is a batch of request lines run in one process? A predictor opened once, called with one batch after another.

Items and results are plain JSON values, so that a cluster can carry them; pictures are written where they are drawn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from export.config import InferConfig
from export.predictions import IMAGES
from export.predictor import Answer, PredictOptions, Predictor, Prompt
from export.requests import RequestLine


def batches(lines: Sequence[RequestLine], batch_size: int) -> Iterator[dict[str, Any]]:
    """Items for `BatchActor`: batches of one task each, of batch_size lines at most."""
    by_task = sorted(lines, key=lambda line: (line.task, line.line))
    for _, group in groupby(by_task, key=lambda line: line.task):
        members = [line._asdict() for line in group]
        for start in range(0, len(members), batch_size):
            yield {"lines": members[start : start + batch_size]}


def actor_settings(bundle: Path, engine: str, engines: Path, config: InferConfig, folder: Path) -> dict[str, Any]:
    """BatchActor's arguments, every path absolute, for a worker's working directory is another one."""
    return {
        "bundle": str(bundle.absolute()),
        "engine": engine,
        "engines": str(engines.absolute()),
        "options": {name: value for name, value in asdict(config).items() if name not in ("requests", "engine")},
        "requests_folder": str(Path(config.requests).parent.absolute()),
        "folder": str(folder.absolute()),
    }


class BatchActor:
    """Answers batches.

    options: PredictOptions' fields. requests_folder: where image paths start. folder: pictures go into its images/.
    """

    def __init__(
        self, *, bundle: str, engine: str, engines: str, options: dict[str, Any], requests_folder: str, folder: str
    ) -> None:
        self.predictor = Predictor.open(Path(bundle), engine=engine, engines=Path(engines))
        self.options = PredictOptions(**options)
        self.requests_folder, self.images = Path(requests_folder), Path(folder) / IMAGES

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """{"lines": [...]} -> {"answers": [...] in the same order, "seconds"}."""
        lines = [RequestLine(**line) for line in item["lines"]]
        started_s = time.monotonic()
        answers = self.predictor.predict([self._prompt(line) for line in lines], self.options)
        return {
            "answers": [self._record(line, answer) for line, answer in zip(lines, answers, strict=True)],
            "seconds": time.monotonic() - started_s,
        }

    def _prompt(self, line: RequestLine) -> Prompt:
        try:
            image = (self.requests_folder / line.image).read_bytes() if line.image else b""
        except OSError:
            # Without bytes the predictor says in its answer that the image cannot be read.
            image = b""
        return Prompt(line.id, line.task, line.prompt, image)

    def _record(self, line: RequestLine, answer: Answer) -> dict[str, Any]:
        record: dict[str, Any] = {"line": line.line, "id": line.id, "task": line.task}
        if answer.error:
            return record | {"error": answer.error}
        if not answer.image_png:
            return record | {"generated_text": answer.text, "num_tokens": answer.num_tokens}
        # Ids are anything users write, so the file is named by the line.
        name = f"{line.line:06d}.png"
        (self.images / name).write_bytes(answer.image_png)
        return record | {"generated_image": f"{IMAGES}/{name}"}
