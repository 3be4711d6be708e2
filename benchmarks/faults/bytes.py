"""Changed bytes, to be found before they are used. D2: in every file of the data; D3: in DVC's cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.corpora import encode_here, params_for, write_inputs
from benchmarks.faults.counts import (
    ROOT,
    Found,
    Setting,
    Trial,
    by_default,
    counted,
    damaged,
    flip_somewhere,
    misses,
)
from components.data.documents import SPLITS
from components.data.loader import PackedRows
from core.errors import BadInput, GateRefused
from core.manifest import MANIFEST, read_manifest

FOLDERS = {"data/documents": "documents", "data/latents": "latents", "data/tokenizer": "tokenizer"}
NUM_DOCUMENTS = 24


def flipped_bytes(setting: Setting) -> Found:
    """D2: one random byte at a time, in shards, packed rows, Parquet, statistics and manifests, file after file."""
    with chdir(encoded(setting.folder)):
        paths = [path for folder in FOLDERS for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        originals = {path: path.read_bytes() for path in paths}
        read_first = {path: _plain_reader(path)[1]() for path in paths}
        ours: list[Trial] = []
        beside: dict[str, list[Trial]] = {}
        for cos_sin in range(100 if setting.quick else 1000):
            # Every file in turn, so that small ones have their share.
            path = paths[cos_sin % len(paths)]
            with damaged(path, flip_somewhere(originals[path], setting.generator)):
                ours.append(_found_by_every_reader(path))
                tool, read = _plain_reader(path)
                beside.setdefault(tool, []).append(by_default(read, lambda value, path=path: _equal(value, read_first[path])))
        assert all(path.read_bytes() == data for path, data in originals.items())
        assert PackedRows(Path("data/latents"), "train", None).num_rows > 0
    return Found(counted(ours), {tool: counted(trials) for tool, trials in sorted(beside.items())}, misses(ours))


def flipped_cache_objects(setting: Setting) -> Found:
    """D3: a byte of a read-only object in DVC's cache; checked out, and read by the next stages."""
    from pipelines import encode, validate

    work = encoded(setting.folder)
    params = params_for()
    run_dvc(work, "init", "--no-scm", "-q")
    run_dvc(work, "add", "-q", "data/documents", "data/latents")
    ours, plain = [], []
    with chdir(work):
        readers: dict[str, Sequence[Callable[[], object]]] = {
            "documents": (lambda: validate.main(params, "documents"), lambda: encode.inputs(params)),
            "latents": (lambda: validate.main(params, "latents"), lambda: _open_all(Path("data/latents"))),
        }
        objects = _objects(work)
        chosen = list(objects)[:: len(objects) // (1 if setting.quick else 6)]
        for name in chosen:
            target = Path("data") / name.partition("/")[0]
            right = (Path("data") / name).read_bytes()
            assert right == objects[name].read_bytes(), "the object is the file's"
            assert objects[name].stat().st_mode & 0o777 == 0o444, "DVC trusts what is read-only"
            with damaged(objects[name], flip_somewhere(right, setting.generator)):
                shutil.rmtree(target)
                run_dvc(work, "checkout", "-q", f"{target}.dvc")
                says = run_dvc(work, "status").stdout
                wrong = (Path("data") / name).read_bytes() != right
                plain.append(Trial("silent" if wrong else "", wrong_bytes=int(wrong and "up to date" in says)))
                refused = [refusal(read) for read in readers[target.name]]
                named = [name in said or Path(name).name in said for said in refused]
                ours.append(Trial("" if all(named) else f"{name}: {refused}", wrong_bytes=int(not all(refused))))
            (Path("data") / name).unlink()
            (Path("data") / name).write_bytes(right)
    return Found(counted(ours), {"dvc checkout, status": counted(plain)}, misses(ours))


def run_dvc(work: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """One DVC command in `work`."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=work, env=dvc_environment(), capture_output=True, text=True, check=check)


def dvc_environment() -> dict[str, str]:
    """DVC's, and that of the stages which it starts."""
    kept = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", "GX_ANALYTICS_ENABLED": "false"}


def encoded(folder: Path) -> Path:
    """A working directory with all that the encode stage reads and writes, in several small shards."""
    work = folder / "work"
    write_inputs(work, NUM_DOCUMENTS)
    with chdir(work):
        encode_here(Path(".work/encode").absolute(), params_for(), Path("data/latents"))
    return work


def _found_by_every_reader(path: Path) -> Trial:
    """Everyone who reads the file must refuse it: the gates and the encoder whole folders, the loader one split."""
    folder, name = Path(*path.parts[:2]), "/".join(path.parts[2:])
    refused = [refusal(lambda: read_manifest(folder, kind=FOLDERS[str(folder)]))]
    if folder.name == "latents" and name != "table.parquet":  # which the loader does not read
        splits = SPLITS if name == MANIFEST else (name.partition("/")[0],)
        refused += [refusal(lambda split=split: PackedRows(folder, split, None)) for split in splits]
    return Trial("" if all(refused) else f"{path} was read", wrong_bytes=int(not all(refused)))


def refusal(read: Callable[[], object]) -> str:
    """The sentence of a refusal, "" where there was none; any other exception is a fault of ours."""
    try:
        read()
    except (BadInput, GateRefused) as error:
        return str(error)
    return ""


def _plain_reader(path: Path) -> tuple[str, Callable[[], Any]]:
    """The tool that reads such a file, and how it does as it comes."""
    readers: dict[str, tuple[str, Callable[[], Any]]] = {
        ".safetensors": ("safetensors", lambda: load_file(path)),
        ".parquet": ("pyarrow", lambda: load_table(path)),
        ".json": ("json", lambda: json.loads(path.read_bytes())),
    }
    return readers[path.suffix]


def load_table(path: Path) -> Any:
    """A pyarrow Table. Its column names are read too: a damaged one raises only there, which is pyarrow's catch."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return table.select(table.column_names)


def load_file(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)


def _equal(value: Any, right: Any) -> Trial:
    """A tool read a changed file without a word. Where the value is still right (padding, spaces), nothing wrong got in."""
    if isinstance(right, dict) and all(isinstance(part, np.ndarray) for part in right.values()):
        same = set(value) == set(right) and all(value[name].tobytes() == right[name].tobytes() for name in right)
    else:
        same = value.equals(right) if hasattr(right, "equals") else value == right
    return Trial("no error", wrong_bytes=int(not same))


def _objects(work: Path) -> dict[str, Path]:
    """documents/<file> and latents/<file> -> the object in DVC's cache."""
    from hashlib import md5

    names = sorted(
        path for folder in ("documents", "latents") for path in (work / "data" / folder).rglob("*") if path.is_file()
    )
    found = {}
    for path in names:
        digest = md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        found[str(path.relative_to(work / "data"))] = work / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    return found


def _open_all(folder: Path) -> None:
    """What the training does: every split that the manifest lists."""
    problems = [refusal(lambda split=split: PackedRows(folder, split, None)) for split in SPLITS]
    if any(problems):
        raise BadInput(next(said for said in problems if said))
    # The table is the gate's alone.
    read_manifest(folder, kind="latents")
