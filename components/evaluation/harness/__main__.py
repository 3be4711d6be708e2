"""The command of lm-evaluation-harness, which knows this repository's models as "transfusion".

    python -m components.evaluation.harness --tasks mine --include_path tasks
    python -m components.evaluation.harness --model_args model=artifacts/train,tokenizer=data/tokenizer --tasks hellaswag,piqa

All options are the harness's own; the model is the bundle of artifacts/bundle where none is named.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from core.errors import BadInput

MODEL = ("--model", "-M", "--config", "-C")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the harness's command line; returns the exit code."""
    try:
        from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports]

        # Registers the model by its import, as the harness's users do.
        from components.evaluation.harness import language_model  # noqa: F401
    except ModuleNotFoundError as error:
        print(f'harness: the package {error.name} is not installed here; pip install -e ".[lm-eval]" adds it', file=sys.stderr)
        return 1
    sys.argv = ["lm-eval", *with_model(list(sys.argv[1:] if arguments is None else arguments))]
    try:
        cli_evaluate()
    except BadInput as error:
        print(f"harness: {error}", file=sys.stderr)
        return 1
    return 0


def with_model(arguments: list[str]) -> list[str]:
    """The same, with --model transfusion where tasks are run and no model is named."""
    if not arguments or arguments in (["--help"], ["-h"]) or not arguments[0].startswith(("-", "run")):
        return arguments
    named = any(each.partition("=")[0] in MODEL for each in arguments)
    return arguments if named else [*arguments, "--model", "transfusion"]


if __name__ == "__main__":
    sys.exit(main())
