"""Training measured by one command: whether the next batch is read while a step is taken.

`python -m benchmarks.training` writes benchmarks/results/training.json and prints its figures as the last line. Needs the
stages before `train` (`dvc repro encode validate`). Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.command import Result, keep, some_of
from benchmarks.training import overlap
from core.errors import BadInput
from pipelines.params import ParamsError

OUT = Path(__file__).resolve().parents[1] / "results" / "training.json"

# By name, what gives a part's figures; what they were found by lies under the part's name in "parts".
PARTS: dict[str, Callable[[argparse.Namespace], Result]] = {"overlap": overlap.measure}


def main(argv: Sequence[str]) -> int:
    """Measure the parts, one after the other; each is kept as it comes."""
    options = parser().parse_args(argv)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    try:
        for name in options.only:
            found = PARTS[name](options)
            found = {**found, "parts": {name: {**found["parts"][name], "machine": machine.describe(torch.get_num_threads())}}}
            kept = keep(found, options.out, merged)
            print(json.dumps({key: value for key, value in kept.items() if key != "parts"}), flush=True)
    except (BadInput, ParamsError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    made.add_argument("--only", type=some_of(PARTS, "part"), default=list(PARTS), help=f"of {', '.join(PARTS)}")
    made.add_argument("--quick", action="store_true", help="few steps: whether it runs, not how fast")
    made.add_argument("--threads", type=int, default=0, help="torch's own number without")
    made.add_argument("--out", type=Path, default=OUT)
    return made


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> Result:
    """Part by part: what was not measured this time stays."""
    return {**old, **new, "parts": {**old.get("parts", {}), **new["parts"]}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
