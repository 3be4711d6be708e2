"""WHAT runs: one thin module per DVC stage; each reads Params, calls components and writes outputs and a report."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m pipelines.<command>` is about to load that command's modules
    from pipelines import loading

    loading.guard()
