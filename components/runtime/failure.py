"""Failures that are the user's to mend: two exceptions whose message is one sentence: what, where, what to do.

Both end a stage with exit code 1 and that sentence alone. What other libraries raise is put into words by `diagnosis`; the
rest is a fault of ours and keeps its traceback.
"""


class BadInput(ValueError):
    """What the user gave (a corpus, a file, a request) cannot be used."""


class GateRefused(RuntimeError):
    """A check between two stages failed; everything computed before it is kept."""


class WorkersFailed(RuntimeError):
    """Processes of a stage ended again and again; everything computed before is kept."""
