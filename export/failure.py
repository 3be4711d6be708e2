"""Which failures of the export are expected? Two exceptions whose message is one sentence: what, where, what to do."""


class ExportRefused(RuntimeError):
    """A bundle, a graph or an engine cannot be used or made; a stage turns this into its own exit code."""


class BadPrompt(ValueError):
    """One request cannot be fulfilled; the others of its batch can."""
