"""A Ray cluster for as long as a stage needs it, joined or of its own.

RAY_ADDRESS names a cluster to join; without it a cluster of this machine alone is started and stopped again: on loopback,
reachable with a token of its own, its files in a folder of this user's alone.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.runtime.cluster_folder import remove_folder, temporary_folder
from components.runtime.diagnosis import first_line, sentence_of
from components.runtime.lone_node import loopback_variables, needed_services
from components.runtime.ray_address import check_address, refusal
from components.runtime.surroundings import allow_open_files, native_lines_dropped
from components.runtime.termination import asked
from core.errors import BadInput

if TYPE_CHECKING:
    import torch

_folder: Path | None = None  # the own cluster's, while there is one
REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("components", "core", "export", "model", "pipelines")
# The object store carries names of files and JSON, never tensors.
OBJECT_STORE_BYTES = 512 * 2**20
START_TRIES = 3
# Ray reads these while it is imported, so they are set before.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Its handler of SIGTERM and of crashes prints a stack of C++ and aborts, before any handler of ours.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    "RAY_COLOR_PREFIX": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # What it logs as an error comes with the exception too.
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    # The same for its part in C++, which also calls it an error that an actor may be restarted.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # The second-generation file reader starts 32 actors, whatever the number of cores.
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    # The controller commits checkpoints and sees the end of a run when it polls; its default is every 2 s. Every poll
    # interrupts the workers.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1.0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
# Of a cluster of this machine alone.
OWN_CLUSTER = {
    # Ray takes the network's address for 127.0.0.1, and opens all its ports to it; told that this system knows no clusters
    # (it has Windows and macOS in mind), it stays on loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Nobody reads the figures that it would serve.
    "RAY_enable_metrics_collection": "0",
    # A worker for every core would load Ray before one is wanted, and none would serve: ours have an environment of their own.
    "RAY_prestart_worker_first_driver": "0",
    # No machine joins or leaves (`lone_trainer`).
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # By default workers run at niceness 15, so that Ray's own services answer under load. Workers in lockstep wait for each
    # other's interruptions: on two cores training is 7% faster without.
    "RAY_worker_niceness": "0",
}
# What a worker on another machine must know of this one's environment: where latents are read, the way into an object store,
# and in what pages memory comes. AWS_PROFILE is not among them: it names an entry of a file that need not exist there. Nothing
# of MLflow: the stage itself delivers what its workers record.
FORWARDED = (
    *("TRANSFUSION_LATENTS", "TRANSFUSION_CACHE", "TRANSFUSION_CACHE_GIB", "GLIBC_TUNABLES"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"),
)


def device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def start_ray(*, min_cpus: int = 4) -> Iterator[None]:
    """A connected Ray inside the block. What this call started is stopped at the end, and nothing else.

    min_cpus: logical CPUs of a cluster of our own at least; Ray Data hangs with fewer than four.
    """
    address = address_to_join()
    _set_environment(own_cluster=not address)
    import ray

    if ray.is_initialized():
        yield
        return
    with _joined(address) if address else _own_cluster(max(min_cpus, (os.cpu_count() or 1) + 2)):
        yield


def cluster_resources() -> Mapping[str, float]:
    """What the cluster has in all, by Ray's names; one of our own is started for it where none is there."""
    with start_ray():
        import ray

        return ray.cluster_resources()


def check_cluster() -> None:
    """BadInput where the cluster that RAY_ADDRESS names is not there: looked at before anything is begun that needs it."""
    if address := address_to_join():
        _set_environment(own_cluster=False)
        import ray

        if not ray.is_initialized():
            check_address(address)


def address_to_join() -> str:
    """Of the cluster to join; "" for one of our own."""
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


@contextmanager
def _handler_kept() -> Iterator[None]:
    """Ray puts handlers of its own in the place of ours for SIGTERM, which end the process with another code."""
    import ray._private.utils as utils

    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        yield
        return
    original = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = original


def _set_environment(*, own_cluster: bool) -> None:
    """What Ray reads: most of it while it is imported, so that it is too late for the rest when it has been."""
    if own_cluster:
        for name, value in OWN_CLUSTER.items():
            os.environ.setdefault(name, value)
    if "ray" in sys.modules:
        if own_cluster:
            _stay_on_loopback()
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if own_cluster:
        # A token in the environment keeps Ray from writing one into the home folder, where others may read it.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _stay_on_loopback() -> None:
    """Tell an imported Ray, too, what OWN_CLUSTER says: a notebook imports it before it calls us."""
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, False)


@contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray

    environment: dict[str, Any] = {"env_vars": _worker_variables()}
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:  # a submitted job has shipped its working directory already
        environment["py_modules"] = [str(REPOSITORY / package) for package in PACKAGES]
    check_address(address)
    try:
        with _handler_kept(), native_lines_dropped():
            ray.init(
                address=address,
                logging_level=logging.ERROR,
                log_to_driver=_is_wanted("TRANSFUSION_WORKER_LOGS"),
                runtime_env=environment,
            )
    except Exception as error:
        ray.shutdown()
        raise refusal(address, error) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _own_cluster(num_cpus: int) -> Iterator[None]:
    import ray

    global _folder
    allow_open_files()
    folder = temporary_folder()
    search_path = os.pathsep.join(part for part in (str(REPOSITORY), os.environ.get("PYTHONPATH", "")) if part)
    variables = _worker_variables() | loopback_variables() | {"PYTHONPATH": search_path}
    try:
        try:
            dashboard, worker_logs = _is_wanted("TRANSFUSION_RAY_DASHBOARD"), _is_wanted("TRANSFUSION_WORKER_LOGS")
            with _handler_kept(), needed_services(dashboard=dashboard, worker_logs=worker_logs):
                _init_own(num_cpus, folder, variables)
        except (KeyboardInterrupt, SystemExit):
            _stop_half_started(folder)
            raise
        _folder = folder
        yield
    finally:
        _folder = None
        try:
            ray.shutdown()  # raises where the signal that ends this process has ended Ray's before
        finally:
            remove_folder(folder)


def _init_own(num_cpus: int, folder: Path, variables: dict[str, str]) -> None:
    """Start it, again where a busy machine took longer than Ray waits, which is 30 s and not to be set."""
    for tries_left in reversed(range(START_TRIES)):
        try:
            return _init_once(num_cpus, folder, variables)
        except Exception as error:
            _stop_half_started(folder)
            if not tries_left or asked() or "timed out during startup" not in str(error):
                reason = sentence_of(error) or first_line(error)
                raise BadInput(f"Ray does not start on this machine ({reason}); stop other programs, and run again") from None


def _init_once(num_cpus: int, folder: Path, variables: dict[str, str]) -> None:
    import ray

    with native_lines_dropped():
        ray.init(
            address="local",
            num_cpus=num_cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=_is_wanted("TRANSFUSION_RAY_DASHBOARD"),
            dashboard_host="127.0.0.1",
            logging_level=logging.ERROR,
            log_to_driver=_is_wanted("TRANSFUSION_WORKER_LOGS"),
            runtime_env={"env_vars": variables},
            _node_ip_address="127.0.0.1",
            # Ray opens its folder to everybody, so it is one inside ours.
            _temp_dir=str(folder / "r"),
        )


def _stop_half_started(folder: Path) -> None:
    """Ray does not know of the processes of a start that failed; each has the folder in its command line."""
    import psutil
    import ray

    ray.shutdown()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if str(folder) in " ".join(process.cmdline()):
                process.kill()


def private_folder() -> Path | None:
    """A folder of the own cluster's that only this user may enter; None where a cluster was joined."""
    return _folder


def _is_wanted(variable: str) -> bool:
    """TRANSFUSION_WORKER_LOGS=1 shows what workers print; their errors come with the exception in any case.

    TRANSFUSION_RAY_DASHBOARD=1 starts the dashboard of a cluster of our own. It takes some percent of two cores, and workers
    that wait for each other lose what each of them loses.
    """
    return os.environ.get(variable, "0") not in ("", "0")


def _worker_variables() -> dict[str, str]:
    # Threads that wait for each other by spinning are ten times slower and more where another program wants the cores.
    forwarded = {name: os.environ[name] for name in FORWARDED if name in os.environ}
    return QUIET | {"OMP_WAIT_POLICY": "passive"} | forwarded
