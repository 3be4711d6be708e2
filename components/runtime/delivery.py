"""What an outbox's entries are in MLflow's calls, each of which may be made again without doubling anything.

What failed half-way is sent again with the same names and times. Metrics that the store has are left out: a point is a name
at a step where the entry says `once` (a step that was trained again after a kill), else a name at a step and a time.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from components.runtime.credentials import without_secrets
from components.runtime.tracking_store import LATER, OPENED_AS, client_of, experiment_id, opened_id
from core.errors import BadInput

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from PIL import Image

# The store's limits for one call.
MAX_METRICS, MAX_PARAMS, MAX_PARAM_CHARACTERS = 1000, 100, 6000
# Enough to tell data apart, and short enough to be read.
DIGEST_CHARACTERS = 12
# Wider than a card of MLflow's charts, which does not enlarge a picture.
SHOWN_PX = 1024
# (name, step), or (name, step, time)
Point = tuple[str, int] | tuple[str, int, int]


class Refused(Exception):
    """The store understood an entry and will never take it."""


class Delivery:
    """The way of one run's entries into its store. files: where their files are kept."""

    def __init__(self, files: Path, uri: str, run_id: str) -> None:
        self.files, self.uri, self.run_id = files, uri, run_id
        self._client: MlflowClient | None = None
        # Name of a metric -> its points that the store has; asked for again after every failure.
        self._known: dict[str, set[Point]] = {}
        # Whether the store refused to open the run: nothing else of it can arrive then.
        self._never_opened = False

    def forget(self) -> None:
        """What the store has is uncertain again."""
        self._known = {}

    def send(self, values: Sequence[Mapping[str, Any]]) -> None:
        """Send entries of one kind, as many metrics as one likes or one of everything else.

        Refused where sending them again would change nothing; anything else that is raised is the store's failure.
        """
        from mlflow.exceptions import MlflowException

        if values[0]["kind"] not in _KINDS:
            raise Refused(f"nobody knows the kind of entry {values[0]['kind']!r}")
        if self._never_opened:
            raise Refused(f"the store refused to open run {self.run_id}")
        if self._client is None:
            self._client = client_of(self.uri)
        try:
            if self.run_id.startswith(LATER) and values[0]["kind"] != "opening":
                self.run_id = opened_id(self._client, self.uri, self.run_id)
                if self.run_id.startswith(LATER):
                    raise BadInput(f"run {self.run_id} is not opened in the tracking store {self.uri} yet")
            _KINDS[values[0]["kind"]](self, self._client, values)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            if values[0]["kind"] == "opening":
                self._never_opened = True
            elif self._client.get_run(self.run_id).info.lifecycle_stage != "active":
                raise BadInput(
                    f"run {self.run_id} was deleted in the tracking store {self.uri}; "
                    f"bring it back with `mlflow runs restore --run-id {self.run_id}`"
                ) from None
            raise Refused(without_secrets(" ".join(str(error).split()))[:300]) from None

    def _opening(self, client: MlflowClient, values: Sequence[Mapping[str, Any]]) -> None:
        """Found again by its tag where a kill came between its opening and the note of it."""
        value, known = values[0], opened_id(client, self.uri, self.run_id)
        if known.startswith(LATER):
            tags = value["tags"] | {OPENED_AS: self.run_id}
            start_ms, experiment = value["time_ms"], experiment_id(client, self.uri)
            known = client.create_run(experiment, start_time=start_ms, tags=tags, run_name=value["name"]).info.run_id
        self.run_id = known

    def _metrics(self, client: MlflowClient, values: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.entities import Metric

        fresh: list[Metric] = []
        for value in values:
            step, time_ms, once = value["step"], value["time_ms"], value.get("once", False)
            for name, number in value["values"].items():
                point = (name, step) if once else (name, step, time_ms)
                known = self._points_of(client, name)
                if point not in known:
                    known |= {(name, step), (name, step, time_ms)}
                    fresh.append(Metric(name, float(number), time_ms, step))
        for start in range(0, len(fresh), MAX_METRICS):
            client.log_batch(self.run_id, metrics=fresh[start : start + MAX_METRICS])

    def _points_of(self, client: MlflowClient, name: str) -> set[Point]:
        if name not in self._known:
            history = client.get_metric_history(self.run_id, name)
            points: set[Point] = {(name, entry.step) for entry in history}
            self._known[name] = points | {(name, entry.step, entry.timestamp) for entry in history}
        return self._known[name]

    def _params(self, client: MlflowClient, values: Sequence[Mapping[str, Any]]) -> None:
        """MLflow's rule: a parameter keeps its first value."""
        from mlflow.entities import Param

        known = client.get_run(self.run_id).data.params
        wanted = values[0]["values"].items()
        new = [Param(key, str(value)[:MAX_PARAM_CHARACTERS]) for key, value in wanted if key not in known]
        for start in range(0, len(new), MAX_PARAMS):
            client.log_batch(self.run_id, params=new[start : start + MAX_PARAMS])

    def _tags(self, client: MlflowClient, values: Sequence[Mapping[str, Any]]) -> None:
        for key, value in values[0]["values"].items():
            client.set_tag(self.run_id, key, value)

    def _dataset(self, client: MlflowClient, values: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput, InputTag

        value = values[0]
        source = CodeDatasetSource(tags={"path": value["source"]})
        dataset = MetaDataset(source, name=value["name"], digest=value["digest"][:DIGEST_CHARACTERS])
        entry = DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", value["context"])])
        client.log_inputs(self.run_id, [entry])

    def _artifact(self, client: MlflowClient, values: Sequence[Mapping[str, Any]]) -> None:
        for path in self._kept(values[0]):
            log = client.log_artifacts if path.is_dir() else client.log_artifact
            log(self.run_id, str(path), values[0]["folder"])

    def _image(self, client: MlflowClient, values: Sequence[Mapping[str, Any]]) -> None:
        """Two files named as by `MlflowClient.log_image`, the same at every try, so that none is doubled."""
        value = values[0]
        stem = f"{value['key'].replace('/', '~')}+step+{value['step']}+timestamp+"
        if value.get("once"):
            names = [Path(item.path).name for item in client.list_artifacts(self.run_id, "images")]
            other = [name for name in names if name.startswith(stem) and not name.startswith(f"{stem}{value['time_ms']}+")]
            if any(name.endswith(".webp") for name in other):  # the second of the two
                return
        # Beside the picture, so that what a kill leaves goes with the outbox.
        with TemporaryDirectory(dir=self.files) as folder:
            for path in self._kept(value):
                for file in _image_files(path.read_bytes(), Path(folder), f"{stem}{value['time_ms']}+{value['file']}"):
                    client.log_artifact(self.run_id, str(file), "images")
        client.set_tag(self.run_id, "mlflow.loggedImages", "True")

    def _kept(self, value: Mapping[str, Any]) -> list[Path]:
        """What the entry's folder holds; nothing where it was delivered and deleted before a kill."""
        return sorted((self.files / value["file"]).glob("*"))

    def _status(self, client: MlflowClient, values: Sequence[Mapping[str, Any]]) -> None:
        value = values[0]
        if value["status"] == "RUNNING":
            client.update_run(self.run_id, status="RUNNING")
        else:
            client.set_terminated(self.run_id, value["status"], end_time=value["time_ms"])


_KINDS: dict[str, Callable[[Delivery, MlflowClient, Sequence[Mapping[str, Any]]], None]] = {
    "opening": Delivery._opening,
    "metrics": Delivery._metrics,
    "params": Delivery._params,
    "tags": Delivery._tags,
    "dataset": Delivery._dataset,
    "artifact": Delivery._artifact,
    "image": Delivery._image,
    "status": Delivery._status,
}


def _image_files(png: bytes, folder: Path, stem: str) -> list[Path]:
    """The whole picture, and the one that the pages show."""
    from PIL import Image

    whole, shown = folder / f"{stem}.png", folder / f"{stem}+compressed.webp"
    whole.write_bytes(png)
    with Image.open(io.BytesIO(png)) as picture:
        _filling_a_card(picture.convert("RGB")).save(shown)
    return [whole, shown]


def _filling_a_card(picture: Image.Image) -> Image.Image:
    """At the top of a white square: a card of MLflow's charts is as wide as the square, and cuts off its lower part."""
    from PIL import Image

    scale = SHOWN_PX / max(picture.size)
    width, height = (max(1, round(scale * side)) for side in picture.size)
    square = Image.new("RGB", (SHOWN_PX, SHOWN_PX), "white")
    square.paste(picture.resize((width, height), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS))
    return square
