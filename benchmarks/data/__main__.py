"""The data path measured by one command: packing, loading, encoding, reading.

`python -m benchmarks.data` writes benchmarks/results/data.json and prints it as the last line. benchmarks/README.md says what
each figure means.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.command import keep, some_of
from benchmarks.data import encode, loader, packing, readers

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "data.json"
SEED = 17

Group = Callable[[argparse.Namespace, Path], dict[str, Any]]


def _packing(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    return packing.measure(quick=arguments.quick, rounds=arguments.rounds, seed=SEED)


def _loader(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import torch

    # Both sides read with one core.
    torch.set_num_threads(1)
    seconds = 0.05 if arguments.quick else 2.0
    return loader.measure(folder, quick=arguments.quick, rounds=arguments.rounds, seconds=seconds, seed=SEED)


def _encode(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    options = {"quick": arguments.quick, "rounds": arguments.rounds, "num_cores": arguments.cores}
    return encode.measure(folder, **options, seed=SEED)


def _readers(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    return readers.measure(folder, quick=arguments.quick, seed=SEED)


GROUPS: dict[str, Group] = {
    "packing": _packing,
    "loader": _loader,
    "encode": _encode,
    "readers": _readers,
}


def main(argv: Sequence[str] | None = None) -> int:
    """argv: the command line's words, the process's own by default."""
    arguments = _parse(argv)
    result: dict[str, Any] = {}
    for name in arguments.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        # What the stages print on the way is no result.
        with tempfile.TemporaryDirectory(prefix="data-benchmark-") as folder, redirect_stdout(sys.stderr):
            result |= GROUPS[name](arguments, Path(folder))
    result["machine"] = machine.describe(arguments.cores)
    out: Path = arguments.out or (ROOT / ".work" / "data-quick.json" if arguments.quick else RESULT)
    print(json.dumps(keep(result, out, merged)))
    return 0


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new figures among the old ones; old ones of another machine are dropped."""
    if old.get("machine") != new["machine"]:
        print("earlier figures are dropped: their machine differs", file=sys.stderr)
        return dict(new)
    return {**old, **new}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    groups = f"some of: {', '.join(GROUPS)}; with commas"
    parser.add_argument("--only", type=some_of(GROUPS, "group"), default=list(GROUPS), help=groups)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side (default: 5)")
    parser.add_argument(
        "--cores", type=int, default=machine.num_cores(), help="for encoding, of both sides (default: all there are)"
    )
    parser.add_argument("--quick", action="store_true", help="toy sizes: whether it runs, not how fast")
    parser.add_argument("--out", type=Path, help="the file to write (default: benchmarks/results/data.json)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
