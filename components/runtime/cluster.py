"""Who does the work? The one home of Ray: a cluster for as long as a stage needs it, training workers, a pool of actors.

RAY_ADDRESS names a cluster to join; without it a cluster of this machine alone is started, reachable from this machine alone
with a token of its own, and stopped again. TRANSFUSION_NUM_WORKERS and TRANSFUSION_NUM_ACTORS set the numbers of processes.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from components.runtime.failure import BadInput

if TYPE_CHECKING:
    import torch

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("components", "export", "model", "pipelines")
# The object store carries names of files and JSON, never tensors.
OBJECT_STORE_BYTES = 512 * 2**20
# Ray reads these while it is imported, so they are set before.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # The second-generation file reader starts 32 actors, whatever the number of cores.
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    # The controller commits checkpoints and sees the end of a run when it polls; its default is every 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
# What a worker on another machine must know of this one's environment.
FORWARDED = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


class ItemActor(Protocol):
    """What `map_over_actors` runs: built once in each process, then called with one item after another."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]: ...


def device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def num_training_workers() -> int:
    """TRANSFUSION_NUM_WORKERS, else one a GPU, else one.

    On two cores one worker with two threads is faster than two workers with one thread each: see docs.
    """
    import torch

    return _number_from("TRANSFUSION_NUM_WORKERS", torch.cuda.device_count() or 1)


def num_map_actors() -> int:
    """TRANSFUSION_NUM_ACTORS, else one a GPU, else one a core."""
    import torch

    return _number_from("TRANSFUSION_NUM_ACTORS", torch.cuda.device_count() or os.cpu_count() or 1)


def _number_from(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise BadInput(f"{variable}={text!r} must be a whole number of at least 1; unset it for the default, {default}")
    return int(text)


@contextmanager
def start_ray(*, min_cpus: int = 4) -> Iterator[None]:
    """A connected Ray inside the block. What this call started is stopped at the end, and nothing else.

    min_cpus: logical CPUs of a cluster of our own at least; Ray Data hangs with fewer than four.
    """
    address = os.environ.get("RAY_ADDRESS")
    _set_environment(own_cluster=not address)
    import ray

    if ray.is_initialized():
        yield
        return
    with _joined(address) if address else _own_cluster(max(min_cpus, (os.cpu_count() or 1) + 2)):
        yield


def _set_environment(*, own_cluster: bool) -> None:
    """What Ray reads while it is imported; too late, and left alone, when it has been."""
    if "ray" in sys.modules:
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if own_cluster:
        # A token in the environment keeps Ray from writing one into the home folder, where others may read it.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray

    environment: dict[str, Any] = {"env_vars": _worker_variables()}
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:  # a submitted job has shipped its working directory already
        environment["py_modules"] = [str(REPOSITORY / package) for package in PACKAGES]
    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=_wants_worker_logs(), runtime_env=environment)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _own_cluster(num_cpus: int) -> Iterator[None]:
    import ray

    folder = _temporary_folder()
    search_path = os.pathsep.join(part for part in (str(REPOSITORY), os.environ.get("PYTHONPATH", "")) if part)
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            dashboard_host="127.0.0.1",
            logging_level=logging.ERROR,
            log_to_driver=_wants_worker_logs(),
            runtime_env={"env_vars": _worker_variables() | {"PYTHONPATH": search_path}},
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _wants_worker_logs() -> bool:
    """TRANSFUSION_WORKER_LOGS=1 shows what workers print; their errors come with the exception in any case."""
    return os.environ.get("TRANSFUSION_WORKER_LOGS", "0") not in ("", "0")


def _worker_variables() -> dict[str, str]:
    return dict(QUIET) | {name: os.environ[name] for name in FORWARDED if name in os.environ}


def _temporary_folder() -> Path:
    """A short path, for Unix sockets may not be longer than about 100 bytes; leftovers of killed runs are removed."""
    parent = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
    for left in parent.glob("trf-*"):
        owner = left.name.split("-")[1]
        if owner.isdecimal() and not _is_alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"trf-{os.getpid()}-", dir=parent))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def run_workers(
    function: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    *,
    num_workers: int,
    storage_path: Path,
    run_name: str,
    lines: Path,
    max_failures: int = 2,
) -> None:
    """Run `function(config)` in `num_workers` processes joined by torch.distributed, and wait for them. Inside `start_ray`.

    config gains "num_threads", the torch threads a worker may use. lines: a file that a worker appends to; it is printed here.
    A killed worker restarts all of them, max_failures times. The same storage_path and run_name go on where a killed run was.
    A BadInput in a worker is raised here as it is, without another try.
    """
    import torch
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    use_gpu = torch.cuda.is_available()
    refusal = storage_path.absolute() / f"{run_name}-refused.txt"
    refusal.unlink(missing_ok=True)
    trainer = TorchTrainer(
        _Guarded(function, refusal),
        train_loop_config=config | {"num_threads": max(1, (os.cpu_count() or 1) // num_workers)},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name=run_name,
            # Workers run in a folder of Ray's own, where a relative path would mean another place.
            storage_path=str(storage_path.absolute()),
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    with _printed(lines):
        trainer.fit()
    if refusal.exists():
        raise BadInput(refusal.read_text())


class _Guarded:
    """A worker's function whose BadInput ends the run at once: Ray would take it for a failure and start again."""

    def __init__(self, function: Callable[[dict[str, Any]], None], refusal: Path) -> None:
        self.function, self.refusal = function, refusal

    def __call__(self, config: dict[str, Any]) -> None:
        try:
            self.function(config)
        except BadInput as error:
            self.refusal.write_text(str(error))


@contextmanager
def _printed(lines: Path) -> Iterator[None]:
    """Print what is appended to a file while the block runs: Ray would put a process id before every line."""
    start = lines.stat().st_size if lines.exists() else 0
    ended = threading.Event()

    def follow() -> None:
        at = start
        while True:
            last_look = ended.wait(0.2)
            if lines.exists():
                with lines.open() as file:
                    file.seek(at)
                    print(file.read(), end="", flush=True)
                    at = file.tell()
            if last_look:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def map_over_actors(
    items: Sequence[dict[str, Any]],
    actor_class: type[ItemActor],
    constructor_kwargs: Mapping[str, Any],
    num_actors: int,
) -> Iterator[dict[str, Any]]:
    """Call an `actor_class(**constructor_kwargs)` with every item; yields the results as they are finished.

    Items and results are JSON-able dicts; give them a key to restore the order by. Inside `start_ray`.
    """
    import ray.data
    import torch

    if not items:
        return
    num_actors = min(num_actors, len(items))
    num_gpus = torch.cuda.device_count() / num_actors if torch.cuda.is_available() else 0
    lines = ray.data.from_items([{"json": json.dumps(item)} for item in items], override_num_blocks=len(items))
    results = lines.map(
        cast(Any, JsonActor),  # Ray takes a class too, and its annotation does not say so
        fn_constructor_kwargs={"actor_class": actor_class, "constructor_kwargs": dict(constructor_kwargs)},
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        num_cpus=1,
        num_gpus=min(1, num_gpus),
    )
    for row in results.iter_rows():
        yield json.loads(row["json"])


class JsonActor:
    """Carries items to an actor and results back as JSON text, so that no column type is guessed from the first rows."""

    def __init__(self, actor_class: type[ItemActor], constructor_kwargs: dict[str, Any]) -> None:
        self.actor = actor_class(**constructor_kwargs)

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        return {"json": json.dumps(self.actor(json.loads(row["json"])))}
