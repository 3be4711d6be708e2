"""What the exceptions of storage, stores and clusters mean to a user, each as one sentence.

Libraries are told by the names of their exceptions' classes, so that none of them is imported here. A failure that no rule
knows is a fault of ours and keeps its traceback.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from components.runtime.credentials import without_secrets
from components.runtime.os_errors import sentence_of_connection, sentence_of_errno, sentence_of_path

# Where a library raises while it handles another exception, the other one is the reason. In code of ours it need not be.
LIBRARIES = ("mlflow", "ray", "requests", "urllib3", "sqlalchemy", "botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec")
LONGEST = 300
REPOSITORY = Path(__file__).resolve().parents[2]
OURS = ("components", "core", "export", "model", "pipelines", "tests", "benchmarks")
# The loader's, torch's and OpenBLAS's words for a lack of the machine's memory.
NO_MEMORY = ("can't allocate memory", "out of memory", "failed to map segment", "cannot allocate memory")
# The field of an exception from another process that holds what it was raised from there.
RAISED_FROM = "raised_from"


class Rule(NamedTuple):
    """Exceptions whose class, or a base of it, is one of `names` in `module` (or below), and what is to be said of them."""

    module: str
    names: str
    say: Callable[[BaseException], str | None]


def sentence_of(error: BaseException) -> str | None:
    """What is wrong, where, and what to do about it; None for a fault of ours. Causes are looked through."""
    links = list(_links(error))
    for rule in RULES:
        for link in links:
            if _fits(link, rule) and (sentence := rule.say(link)):
                return sentence
    return None


def first_line(error: object) -> str:
    """The first line of a message, without passwords, shortened where it is long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = without_secrets(lines[0] if lines else type(error).__name__)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def reason_of(error: BaseException) -> BaseException | None:
    """What `error` was raised from, as Python keeps it."""
    if error.__cause__ is None and not error.__suppress_context__ and type(error).__module__.split(".")[0] in LIBRARIES:
        return error.__context__
    return error.__cause__


def _links(error: BaseException) -> Iterator[BaseException]:
    """The error and what stands behind it, from the outside to the inside, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        # Ray's copy of what a worker raised is of the same class and has a traceback for a message; the original follows.
        if not _fits(link, RAY_COPY):
            yield link
        waiting += [inner for inner in _behind(link) if isinstance(inner, BaseException)]


def _behind(error: BaseException) -> Iterator[object]:
    # Ray keeps what a worker raised in fields of its own.
    for name in ("cause", "controller_failure", "health_check_failure", "_base_exc", RAISED_FROM):
        yield getattr(error, name, None)
    failures = getattr(error, "worker_failures", None)
    yield from failures.values() if isinstance(failures, dict) else ()
    if isinstance(error, BaseExceptionGroup):
        yield from error.exceptions
    yield reason_of(error)


def _fits(error: BaseException, rule: Rule) -> bool:
    names = rule.names.split()
    for kind in type(error).__mro__:
        inside = kind.__module__ == rule.module or kind.__module__.startswith(f"{rule.module}.")
        if inside and (not names or kind.__name__ in names):
            return True
    return False


def _in_words(template: str) -> Callable[[BaseException], str]:
    return lambda error: template.format(first_line(error))


def _storage_in_text(error: BaseException) -> str | None:
    """safetensors, written in Rust, has the system's error as text alone; `core.files.named` adds the file."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return sentence_of_errno(int(found[1]), getattr(error, "filename", "")) if found else None


def _memory_in_text(error: BaseException) -> str | None:
    """torch has a class for a GPU's memory and none for the machine's; it says so with RuntimeError."""
    return _memory(error) if any(mark in str(error) for mark in NO_MEMORY) else None


def _hidden_module(error: BaseException) -> str | None:
    """A file that bears the name of another's module, and was loaded in its place."""
    module = getattr(error, "obj", None)
    name = (getattr(module, "__name__", None) or getattr(error, "name", None) or "").partition(".")[0]
    file = getattr(error, "path", None) or getattr(module or sys.modules.get(name), "__file__", None)
    homes = (REPOSITORY,) if name in OURS else (sys.prefix, sys.base_prefix)
    if not file or not name or any(Path(file).resolve().is_relative_to(Path(home).resolve()) for home in homes):
        return None
    return f"{file} hides the module {name} ({first_line(error)}); rename it, or take its folder out of PYTHONPATH"


def _missing_package(error: BaseException) -> str | None:
    """A package of others that is not installed; a module of ours that is missing is a fault of ours."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if not name or name in OURS:
        return None
    return f"the package {name} is not installed, or is damaged ({first_line(error)}); run `make setup`"


def _memory(error: BaseException) -> str:
    return f"memory ran out ({first_line(error)}); make the batch or the model smaller, or stop other programs"


def _actor(error: BaseException) -> str | None:
    """An actor's death. One that failed while it was built has the exception's text as its message's last line."""
    if not getattr(error, "actor_init_failed", False):
        return _worker(error)
    last = str(error).strip().splitlines()[-1]
    if said := re.search(r"\b(?:BadInput|GateRefused): (.+)", last):
        return said[1]
    errno = re.search(r"\[Errno (\d+)\][^:]*(?:: '(.+)')?", last)
    return sentence_of_errno(int(errno[1]), errno[2] or "") if errno else None


def _worker(error: BaseException) -> str:
    if "memory" in str(error).lower() and "oom" in str(error).lower():
        return WORKER_MEMORY
    return "a worker process ended without a word, killed from outside or for want of memory; run again to go on"


def _object_store(error: BaseException) -> str:
    """botocore's error with the store's answer in it."""
    answer = getattr(error, "response", None)
    told = answer.get("Error", {}) if isinstance(answer, dict) else {}
    if str(told.get("Code", "")) in ("NoSuchBucket", "NoSuchKey", "404"):
        where = f" {told['BucketName']}" if told.get("BucketName") else ""
        return f"the object store has no such bucket or file{where} ({first_line(error)}); check the URL"
    return OBJECTS.format(first_line(error))


def _no_driver(error: BaseException) -> str | None:
    """fsspec's words for a URL that it has no driver for."""
    if re.match(r"Protocol not known: |Install .+ to access ", str(error)):
        return f"the URL cannot be opened ({first_line(error)}); check its scheme, or install what it needs"
    return None


WORKER_MEMORY = (
    "memory ran out and Ray stopped a worker; make the batch smaller, or run fewer workers (TRANSFUSION_NUM_WORKERS, "
    "TRANSFUSION_NUM_ACTORS)"
)
STORE = "MLflow's database fails ({}); check mlflow.db or what MLFLOW_TRACKING_URI names: its folder, its rights, free space"
SPILL = "a temporary database fails ({}); make room in the folder for temporary files (TMPDIR)"
KEYS = "the object store wants credentials ({}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile that has them"
OBJECTS = "the object store fails ({}); check the URL, the credentials and AWS_ENDPOINT_URL"
NETWORK = "the network fails ({}); check the address, the connection, and that the server runs"
MLFLOW = "MLflow's store refuses ({}); check what MLFLOW_TRACKING_URI names, or unset it for mlflow.db in this folder"
GRAPH = "onnxruntime cannot load a graph ({}); run `dvc repro export` to write the bundle again"
RAY = "Ray fails ({}); check the cluster that RAY_ADDRESS names, or unset it for one of this machine alone"
RAY_TOKEN = "the Ray cluster refuses ({}); infra/README.md says how its token is given"
RAY_DISK = "Ray's folder is full ({}); make room in the folder for temporary files"
RAY_COPY = Rule("ray.exceptions", "RayTaskError", str)
# Ordered: what wraps another library's exception and says less comes after it. The first sentence counts.
RULES = (
    Rule("core.errors", "", str),
    Rule("botocore.exceptions", "NoCredentialsError PartialCredentialsError ProfileNotFound NoAuthTokenError", _in_words(KEYS)),
    Rule("botocore.exceptions", "CredentialRetrievalError SSOError LoginError TokenRetrievalError", _in_words(KEYS)),
    Rule("botocore.exceptions", "ClientError", _object_store),
    Rule("botocore.exceptions", "BotoCoreError", _in_words(OBJECTS)),
    Rule("google.auth.exceptions", "", _in_words(OBJECTS)),
    Rule("azure.core.exceptions", "", _in_words(OBJECTS)),
    Rule("gcsfs.retry", "HttpError", _in_words(OBJECTS)),
    Rule("aiohttp", "ClientError", _in_words(NETWORK)),
    Rule("requests.exceptions", "RequestException", _in_words(NETWORK)),
    Rule("urllib3.exceptions", "HTTPError", _in_words(NETWORK)),
    Rule("builtins", "OSError", sentence_of_path),
    Rule("safetensors", "SafetensorError", _storage_in_text),
    Rule("builtins", "MemoryError", _memory),
    Rule("torch", "OutOfMemoryError", _memory),
    Rule("builtins", "RuntimeError ImportError OSError", _memory_in_text),
    Rule("builtins", "ModuleNotFoundError", _missing_package),
    Rule("builtins", "ImportError AttributeError", _hidden_module),
    Rule("builtins", "ImportError ValueError", _no_driver),
    Rule("sqlalchemy.exc", "DatabaseError", _in_words(STORE)),
    Rule("sqlite3", "DatabaseError", _in_words(SPILL)),
    Rule("mlflow.exceptions", "MlflowException", _in_words(MLFLOW)),
    Rule("onnxruntime.capi", "InvalidProtobuf InvalidGraph NoSuchFile NoModel", _in_words(GRAPH)),
    Rule("ray.exceptions", "OutOfMemoryError", lambda error: WORKER_MEMORY),
    Rule("ray.exceptions", "OutOfDiskError ObjectStoreFullError", _in_words(RAY_DISK)),
    Rule("ray.exceptions", "RayActorError", _actor),
    Rule("ray.exceptions", "WorkerCrashedError NodeDiedError LocalRayletDiedError ObjectLostError", _worker),
    Rule("concurrent.futures.process", "BrokenProcessPool", _worker),
    Rule("ray.exceptions", "AuthenticationError", _in_words(RAY_TOKEN)),
    Rule("ray.exceptions", "GetTimeoutError RaySystemError RpcError RuntimeEnvSetupError", _in_words(RAY)),
    Rule("ray.train.v2._internal.exceptions", "WorkerGroupStartupTimeoutError", _in_words(RAY)),
    Rule("ray.train.v2._internal.exceptions", "InsufficientClusterResourcesError", _in_words(RAY)),
    Rule("builtins", "OSError", sentence_of_connection),
)
