"""Where a run is written down: metrics, pictures, parameters and lineage, into one MLflow run, from any process.

One run a training, and one an evaluation, below it. A `Tracker` writes into an outbox on disk
and never waits; inside `recording.recorded` the outbox is delivered to the store, and whatever a store that stays away did
not get lies in `mlpending/` until `python -m pipelines.sync` or the next stage sends it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.runtime.credentials import without_secrets
from components.runtime.diagnosis import first_line, sentence_of
from components.runtime.outbox import Outbox
from components.runtime.sender import PATIENT, send_at_once
from components.runtime.tracking_store import absolute_uri, portable_uri, project_folder, tracking_uri
from core.errors import BadInput
from core.files import read_json, write_json
from core.png import encode_png
from core.text import counted, plural

if TYPE_CHECKING:
    import numpy as np

PENDING, NOTE = "mlpending", "run.json"
# MLflow's tag that lists the files to show as tables.
TABLES = "mlflow.loggedArtifacts"


class RunIdentity(NamedTuple):
    """What another process needs to log into the same run.

    tracking_uri: absolute, without secrets. pending: the absolute folder of the run's outbox.
    """

    tracking_uri: str
    run_id: str
    pending: str

    def facts(self) -> dict[str, str]:
        """What is kept in files: no secret, and no path that another folder makes wrong."""
        return {"tracking_uri": portable_uri(self.tracking_uri), "run_id": self.run_id}


class About(NamedTuple):
    """What a person is told of a new run."""

    name: str
    """What is trained, in a few words."""
    params: Mapping[str, Any]
    """What is compared between runs, keys joined by dots; the rest stands in `params.yaml`."""
    params_yaml: str
    """Every parameter."""
    note: str
    """Markdown, the run's description."""


def pending_folder() -> Path:
    """Where the outboxes of this project's runs lie: outside everything that stages, or DVC, delete."""
    return project_folder() / PENDING


def identity_of(run_id: str, uri: str = "") -> RunIdentity:
    """A run of this project. uri: of its store, the project's by default."""
    return RunIdentity(absolute_uri(uri) if uri else tracking_uri(), run_id, str(pending_folder() / run_id))


Table = tuple[Sequence[str], Sequence[Sequence[str | float | None]]]
"""Columns, and rows."""


class Tracker:
    """Writes into one run from any process, without waiting for its store.

    once: the point or picture of a step counts once, however often the step is taken. say: where a warning goes.
    """

    def __init__(self, identity: RunIdentity, *, say: Callable[[str], None] | None = None) -> None:
        self.run_id = identity.run_id
        self.outbox = Outbox(Path(identity.pending))
        self._identity, self._say = identity, say or say_on_stderr
        self._held: list[Mapping[str, Any]] = []
        self._said_held = False

    def opening(self, name: str, tags: Mapping[str, str], time_ms: int = 0) -> None:
        """The first entry of a run that is opened with the first delivery. time_ms: when it began, now by default."""
        self._append("opening", name=name, time_ms=time_ms or now_ms(), tags=safe_tags(tags))

    def params(self, tree: Mapping[str, Any]) -> None:
        """Log a configuration, nested keys joined by dots. MLflow's rule: a parameter keeps its first value."""
        self._append("params", values={key: without_secrets(str(value)) for key, value in flatten(tree).items()})

    def metrics(self, values: Mapping[str, float], step: int, *, once: bool = False, time_ms: int = 0) -> None:
        """Log one step's numbers; slashes in the names make sections in the UI. time_ms: now by default."""
        numbers = {name: float(value) for name, value in values.items()}
        self._append("metrics", step=step, time_ms=time_ms or now_ms(), values=numbers, once=once)

    def image(self, picture: np.ndarray, key: str, step: int, *, once: bool = False) -> None:
        """uint8 [height, width, 3]; the same key at several steps becomes a slider."""
        self._append_file(
            lambda: self.outbox.keep_bytes(encode_png(picture), "picture.png"),
            "image",
            **{"key": key, "step": step, "time_ms": now_ms(), "once": once},
        )

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or a folder's files, into the run."""
        self._append_file(lambda: self.outbox.keep(path), "artifact", folder=folder)

    def text(self, text: str, file_name: str) -> None:
        """Keep a text as a file of the run, without secrets of the addresses in it."""
        safe = without_secrets(text).encode()
        self._append_file(lambda: self.outbox.keep_bytes(safe, file_name), "artifact", folder=None)

    def tables(self, tables: Mapping[str, Table]) -> None:
        """Keep columns and rows as files that MLflow shows as tables, and compares between runs; once a run.

        tables: by the files' names, which end in .json.
        """
        for file_name, (columns, rows) in tables.items():
            self.text(json.dumps({"columns": list(columns), "data": [list(row) for row in rows]}), file_name)
        self.tags({TABLES: json.dumps([{"path": file_name, "type": "table"} for file_name in tables])})

    def dataset(self, name: str, *, digest: str, source: Path, context: str) -> None:
        """Record what data the run used. context: "training" or "evaluation"."""
        self._append("dataset", name=name, digest=digest, source=without_secrets(str(source)), context=context)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; `mlflow.note.content` is the run's description."""
        self._append("tags", values=safe_tags(tags))

    def status(self, status: str) -> None:
        """RUNNING, FINISHED, FAILED or KILLED."""
        self._append("status", status=status, time_ms=now_ms())

    def settle(self) -> None:
        """Append no more; what the disk did not take is tried once again."""
        self._write_held()
        self.outbox.close()

    def close(self) -> None:
        """Append no more; what the disk never took goes to the store from memory."""
        self.settle()
        self.send_held()

    def send_held(self, for_s: float = PATIENT.failing_s) -> bool:
        """Send what the disk never took; whether there was any, and all of it went. What the store does not take is lost.

        for_s: how long a store that fails is tried.
        """
        if not self._held:
            return False
        left = send_at_once(self.outbox, self._identity.tracking_uri, self.run_id, self._held, for_s=for_s)
        self._held = []
        if left.number:
            lost, are = counted(left.number, "entry", "entries"), plural(left.number, "is", "are")
            self._say(
                f"tracking: {lost} of run {self.run_id} {are} lost: {self.outbox.folder} could not be written, "
                f"and they could not be sent ({left.failure}); make room there, or make it writable, before the next run"
            )
        return not left.number

    def _append_file(self, keep: Callable[[], str], kind: str, **fields: Any) -> None:
        try:
            name = keep()
        except OSError as error:
            self._say(
                f"tracking: a file of run {self.run_id} could not be kept ({without_secrets(str(error))}) and is not logged"
            )
            return
        self._append(kind, file=name, **fields)

    def _append(self, kind: str, **fields: Any) -> None:
        """On disk before this returns; where the disk is full, with the next one that it takes."""
        if not self._held:
            self._note_run()
        self._held.append({"kind": kind, **fields})
        self._write_held()

    def _write_held(self) -> None:
        while self._held:
            try:
                self.outbox.append(self._held[0])
            except OSError as error:
                if not self._said_held:
                    self._said_held = True
                    reason = sentence_of(error) or first_line(error)
                    self._say(f"tracking: {self.outbox.folder} cannot be written ({reason}); what is logged waits in memory")
                return
            self._held.pop(0)
        self._said_held = False

    def _note_run(self) -> None:
        """What a command that comes later must know of the run."""
        note = self.outbox.folder / NOTE
        try:
            if not note.exists():
                write_json(note, self._identity.facts())
        except OSError:
            return  # said when the entry is appended


def noted_run(note: Path, uri: str = "") -> RunIdentity:
    """The run whose outbox the note stands in; BadInput that says what to do where it cannot be read.

    uri: of its store, where it is not the one noted. Then a broken note is no hindrance: the folder has the run's name.
    """
    try:
        known = read_json(note)
        noted, run_id = known["tracking_uri"], known["run_id"]
        if run_id != note.parent.name or not isinstance(noted, str):
            raise KeyError(run_id)
        return RunIdentity(absolute_uri(uri or noted), run_id, str(note.parent))
    except (BadInput, KeyError, TypeError, OSError) as error:
        if uri:
            return RunIdentity(absolute_uri(uri), note.parent.name, str(note.parent))
        reason = "it does not say which run waits here"
        if isinstance(error, OSError):
            reason = sentence_of(error) or first_line(error)
        raise BadInput(
            f"{note}: {reason}; name the store that the run belongs to (`--uri ADDRESS`), or remove the folder"
        ) from None


def safe_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags, a run's description among them, without secrets of the addresses in them."""
    return {key: without_secrets(value) for key, value in tags.items()}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; the names that `dvc params` shows."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def say_on_stderr(line: str) -> None:
    """Where sentences go unless a stage says otherwise."""
    print(line, file=sys.stderr, flush=True)


def now_ms() -> int:
    """Since 1970, as MLflow counts."""
    return int(time.time() * 1000)
