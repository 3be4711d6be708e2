"""Rows a second that ingest reads from files, and its memory: a process a measurement, watched from outside.

`python -m benchmarks.data.readers FORMAT PATH FOLDER` is that process: it reads PATH as the ingest stage does, into FOLDER.
"""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import psutil

from benchmarks.data.corpus import WORDS, make_picture

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("webdataset", "parquet")
ROWS_A_FILE = 1000
SIDE_PX, TARGET_PX = 48, 32
WATCH_EVERY_S = 0.05


class Pair(NamedTuple):
    """A captioned JPEG file."""

    key: str
    caption: str
    image: bytes


def measure(folder: Path, *, quick: bool, seed: int) -> dict[str, Any]:
    """rows_per_s and peak_memory_mib, by format and number of rows."""
    numbers = (200, 400) if quick else (10_000, 100_000)
    rates: dict[str, dict[str, float]] = {name: {} for name in FORMATS}
    peaks: dict[str, dict[str, float]] = {name: {} for name in FORMATS}
    for number in numbers:
        paths = write_files(folder / str(number), number, seed)
        for name, path in paths.items():
            seconds, peak_mib = watched([name, str(path), str(folder / f"{name}-{number}-documents")], number)
            rates[name][str(number)], peaks[name][str(number)] = round(number / seconds, 1), round(peak_mib, 1)
    return {"rows_per_s": rates, "peak_memory_mib": peaks}


def write_files(folder: Path, number: int, seed: int) -> dict[str, str]:
    """The same captioned images in tars, as img2dataset writes them, and in Parquet with image structs; format -> path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "tars").mkdir(parents=True)
    (folder / "parquet").mkdir()
    pairs = make_pairs(number, seed)
    for file in range(-(-number // ROWS_A_FILE)):
        some = list(itertools.islice(pairs, ROWS_A_FILE))
        with tarfile.open(folder / "tars" / f"{file:05d}.tar", "w") as tar:
            for pair in some:
                facts = json.dumps({"key": pair.key, "caption": pair.caption, "status": "success"})
                for ending, data in (("jpg", pair.image), ("txt", pair.caption.encode()), ("json", facts.encode())):
                    entry = tarfile.TarInfo(f"{pair.key}.{ending}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
        rows = [{"id": pair.key, "image": {"bytes": pair.image, "path": None}, "caption": pair.caption} for pair in some]
        pq.write_table(pa.Table.from_pylist(rows), folder / "parquet" / f"{file:05d}.parquet", row_group_size=100)
    return {"webdataset": str(folder / "tars" / "*.tar"), "parquet": str(folder / "parquet" / "*.parquet")}


def make_pairs(number: int, seed: int) -> Iterator[Pair]:
    """Small JPEG files, no two alike."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    for index in range(number):
        buffer = io.BytesIO()
        Image.fromarray(make_picture(generator, SIDE_PX)).save(buffer, "JPEG", quality=90)
        caption = " ".join(generator.choice(WORDS, int(generator.integers(4, 20))))
        yield Pair(f"{index:09d}", f"{caption} {index}", buffer.getvalue())


def watched(arguments: list[str], number: int) -> tuple[float, float]:
    """Seconds that the reading process says it took, and the most MiB that it and its children held together."""
    command = [sys.executable, "-m", "benchmarks.data.readers", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident_bytes(process.pid))
        time.sleep(WATCH_EVERY_S)
    assert process.stdout is not None
    answer = json.loads(process.stdout.read().splitlines()[-1])
    if process.returncode or answer["documents"] != number:
        raise RuntimeError(f"{' '.join(arguments)}: {answer} of {number} rows, exit code {process.returncode}")
    return answer["seconds"], peak / 2**20


def _resident_bytes(process: int) -> int:
    total = 0
    try:
        parent = psutil.Process(process)
        family = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return total


def read(corpus_format: str, path: str, folder: Path) -> dict[str, Any]:
    """Read one corpus as the ingest stage does; returns the seconds and the documents kept."""
    import pyarrow.parquet as pq

    from components.data.documents import SPLITS, document_parts
    from components.data.ingest.corpora import collect
    from pipelines.params import load

    params = load(ROOT / "params.yaml")
    # As in params.yaml, but for what is read.
    corpus = replace(params.ingest.corpora[0], name="read", format=cast(Any, corpus_format), path=path)
    config = replace(params.ingest, corpora=(corpus,), image_side_px=TARGET_PX)
    started_s = time.perf_counter()
    collect(config, folder, folder.with_suffix(".quarantine.jsonl"))
    seconds = time.perf_counter() - started_s
    parts = [part for split in SPLITS for part in document_parts(folder, split)]
    return {"seconds": seconds, "documents": sum(pq.ParquetFile(part).metadata.num_rows for part in parts)}


if __name__ == "__main__":
    print(json.dumps(read(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
