"""Failures that are the user's to mend: the message is one sentence that says what, where, and what to do.

They end a stage with exit code 1 and that sentence alone. What other libraries raise is put into words by
components/runtime/diagnosis.py; the rest is a fault of ours and keeps its traceback.
"""


class BadInput(ValueError):
    """What the user gave (a corpus, a file, a bundle) cannot be used."""


class BadPrompt(ValueError):
    """One request of many cannot be answered; the others can."""


class GateRefused(RuntimeError):
    """A check between two stages failed; everything computed before it is kept."""


class WorkersFailed(RuntimeError):
    """Processes of a stage ended again and again; everything computed before is kept."""
