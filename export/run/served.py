"""Records of a server to prompts, and answers to rows; whatever serves them (export/run/pyfunc.py: MLflow).

A record is plain text, which asks for a picture, or a mapping of `id`, `task`, `prompt` and `image`: an image file's bytes, or
those in base64. One without an id is named by its place, counted from 1; one without a task asks for what is most likely.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.run.answers import Answer
from export.run.picture_files import MAX_IMAGE_BYTES
from export.run.predictor import Predictor
from export.run.requests import Prompt, usual_task
from export.run.serving_schema import OUTPUTS


class Served:
    """A bundle that answers records."""

    def __init__(self, bundle: Path) -> None:
        self.predictor = Predictor.open(bundle)
        self.columns = [name for name, _, _ in OUTPUTS]

    def answers(self, records: Sequence[Any], parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A row of OUTPUTS for each record; one that cannot be answered has a sentence in `error`, and harms no other.

        parameters: as `Predictor.options` takes them; raises ValueError with a sentence for one that cannot be used.
        """
        options = self.predictor.options(**parameters)
        prompts = [_prompt(record, str(place)) for place, record in enumerate(records, start=1)]
        return [_row(answer) for answer in self.predictor.predict(prompts, options)]


def _prompt(record: Any, place: str) -> Prompt | Answer:
    """A record as the predictor takes it, which checks its texts; or the answer to one that is none."""
    fields = {"prompt": record} if isinstance(record, str) else record
    if not isinstance(fields, Mapping):
        return Answer(place, error=f"a record must be text or an object, not {type(record).__name__}")
    id, words = fields.get("id", place), fields.get("prompt", "")
    try:
        picture = _picture(fields.get("image", b""))
    except ValueError as error:
        return Answer(id, error=str(error))
    return Prompt(id, fields.get("task") or usual_task(words, picture), words, picture)


def _picture(value: Any) -> bytes:
    """An image file's bytes, b"" where there is none; raises ValueError with one sentence."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise ValueError(f"image must be an image file's bytes, in JSON as base64, not {type(value).__name__}")
    # Not even decoded: base64 has four characters for three bytes.
    if len(value) > 2 * MAX_IMAGE_BYTES:
        raise ValueError(f"image has more than {MAX_IMAGE_BYTES // 2**20} MiB")
    try:
        # Encoders break their lines; anything else that is not base64 is a mistake.
        return base64.b64decode("".join(value.split()), validate=True)
    except ValueError:
        raise ValueError("image is not base64") from None


def _row(answer: Answer) -> dict[str, Any]:
    id = answer.id if isinstance(answer.id, str) else ""
    return {"id": id, "text": answer.text, "image_png": answer.image_png, "error": answer.error}
