"""The options by which a command that is no stage takes its parameters."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines import paths


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """`--params` and `--set`, for `load(options.params, options.set)`."""
    parser.add_argument("--params", type=Path, default=paths.PARAMS, metavar="PATH", help="parameters (default: params.yaml)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="override one parameter; may be given again"
    )
