"""Poisoned Parquet files, to be refused or read as what they are, without running code. D9."""

from __future__ import annotations

import io
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.faults.counts import ROOT, Found, Setting, Trial, counted, flip, misses

PARQUET_READER = """
import sys, pyarrow.parquet as pq
table = pq.read_table(sys.argv[1])
assert table.num_rows == int(sys.argv[2]) and table.column(0).to_pylist() == ["text %d" % n for n in range(int(sys.argv[2]))]
"""


def poisoned_parquet(setting: Setting) -> Found:
    """D9: columns that name Python objects, row counts that lie, nesting, indices out of their dictionary."""
    marker = setting.folder / "code-ran"
    trials, plain = [], []
    cases = list(_poisoned(setting, marker))
    for number, poisoned in enumerate(cases[:: 3 if setting.quick else 1]):
        folder = setting.folder / f"case-{number}"
        folder.mkdir()
        path = folder / "a.parquet"
        path.write_bytes(poisoned.data)
        trials.append(_ingested(folder, path, poisoned, marker))
        command = [sys.executable, "-c", PARQUET_READER, str(path), str(poisoned.num_rows)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        # An exception is a catch; a crash takes the whole run with it, and is not.
        crashed = result.returncode < 0
        quiet = (result.returncode == 0 and not poisoned.is_harmless) or "AssertionError" in result.stderr
        plain.append(Trial("crash" if crashed else "quiet" if quiet else "", wrong_bytes=int(quiet)))
    return Found(counted(trials), {"pyarrow": counted(plain)}, misses(trials))


class _Poisoned(NamedTuple):
    """is_harmless: may be read, as long as it is read right: nothing in it is a lie."""

    what: str
    data: bytes
    num_rows: int
    is_harmless: bool


class _Marks:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def _poisoned(setting: Setting, marker: Path) -> Iterator[_Poisoned]:
    import pyarrow as pa

    number = 1234
    texts = pa.array([f"text {n}" for n in range(number)])
    for name in ("arrow.py_extension_type", "arrow.opaque"):
        metadata = {"ARROW:extension:name": name, "ARROW:extension:metadata": pickle.dumps(_Marks(marker))}
        field = pa.field("text", pa.string(), metadata=metadata)
        table = pa.table([texts], schema=pa.schema([field]))
        yield _Poisoned(f"extension type {name}", _parquet(table), number, is_harmless=True)
    good = _parquet(pa.table({"text": texts}))
    # The same number stands in the file, in its row group and in its column; thrift's integers are of any length.
    yield _Poisoned("2^31 rows in the file", _recounted(good, number, 2**31, first_only=True), number, is_harmless=True)
    yield _Poisoned("no rows in the file", _recounted(good, number, 0, first_only=True), number, is_harmless=True)
    yield _Poisoned("2^31 rows in all places", _recounted(good, number, 2**31), number, is_harmless=False)
    yield _Poisoned("-1 rows", _recounted(good, number, -1), number, is_harmless=False)
    deep: Any = pa.array([f"text {n}" for n in range(3)])
    for _ in range(60 if setting.quick else 200):
        deep = pa.ListArray.from_arrays(pa.array(range(len(deep) + 1), pa.int32()), deep)
    yield _Poisoned("deep nesting", _parquet(pa.table({"text": deep})), 3, is_harmless=False)
    yield _Poisoned("index out of the dictionary", _bad_index(), 4096, is_harmless=False)


def _parquet(table: Any) -> bytes:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="none")
    return buffer.getvalue()


def _recounted(data: bytes, old: int, new: int, *, first_only: bool = False) -> bytes:
    """The file with one number of its footer written as another."""
    size = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - size : -8].replace(_varint(old), _varint(new), 1 if first_only else -1)
    damaged = data[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    assert damaged != data
    return damaged


def _varint(number: int) -> bytes:
    """Thrift's compact i64: zigzag, seven bits a byte, low ones first."""
    left, found = (number << 1) ^ (number >> 63), b""
    left &= 2**64 - 1
    while left >= 128:
        found, left = found + bytes([left & 127 | 128]), left >> 7
    return found + bytes([left])


def _bad_index() -> bytes:
    """Indices of a dictionary of 4 words, run-length encoded in 2 bits, made to be of 8 bits and beyond it."""
    import pyarrow as pa

    table = pa.table({"text": pa.array([f"text {n // 1024}" for n in range(4096)])})
    data = _parquet(table)
    # Each run is its length twice as a varint (1024 -> 0x80 0x10) and one byte of value.
    run = _varint(1024 // 1)
    at = data.index(run + b"\x03")
    return flip(data, at + len(run), 0x03 ^ 0xFB)


def _ingested(folder: Path, path: Path, poisoned: _Poisoned, marker: Path) -> Trial:
    """The ingest stage in a process of its own, as a user starts it."""
    corpus = f'[{{name: mine, format: parquet, path: "{path}", caption_first_share: 1.0}}]'
    command = [sys.executable, "-m", "pipelines.ingest", "--params", str(ROOT / "params.yaml"), "--set"]
    command += [f"ingest.corpora={corpus}", "--set", "ingest.vocab_size=300"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    try:
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return Trial(f"{poisoned.what}: still running after a minute")
    if marker.exists():
        marker.unlink()
        return Trial(f"{poisoned.what}: code ran", wrong_bytes=1)
    if result.returncode == 0 and poisoned.is_harmless:
        kept = f"mine: {poisoned.num_rows} candidates = {poisoned.num_rows} documents + 0 rejected" in result.stdout
        return Trial("" if kept else f"{poisoned.what}: {result.stdout.splitlines()[1:2]}", rows_lost=int(not kept))
    clean = result.returncode == 1 and "Traceback" not in result.stderr
    if result.returncode == -signal.SIGSEGV:
        return Trial(f"{poisoned.what}: the process crashed")
    accepted = int(result.returncode == 0)
    return Trial("" if clean else f"{poisoned.what}: exit {result.returncode}, {result.stderr[-300:]}", wrong_bytes=accepted)
