"""Which failures of the export are expected? Two exceptions whose message is one sentence: what, where, what to do."""


class ExportRefused(RuntimeError):  # noqa: N818
    """A bundle, a graph or an engine cannot be used or made; a stage turns this into its own exit code."""


class BadPrompt(ValueError):  # noqa: N818
    """One request cannot be fulfilled; the others of its batch can."""
