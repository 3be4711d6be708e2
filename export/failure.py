"""Expected failures of the export: two exceptions whose message is one sentence, and the sentence of any other."""

MAX_REASON_CHARACTERS = 300


class ExportRefused(RuntimeError):
    """A bundle, a graph or an engine cannot be used or made; a stage turns this into its own exit code."""


class BadPrompt(ValueError):
    """One request cannot be fulfilled; the others of its batch can."""


def reason(error: BaseException) -> str:
    """Why a request has no answer, in one sentence. An error that asks the process to end is raised again."""
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    if isinstance(error, BadPrompt):
        return str(error)
    # The accelerator's is a class of torch's, which this file does not import.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "the answer needs more memory than there is; take a smaller batch_size or a shorter prompt"
    # The tokenizer's panics derive from BaseException alone, so callers catch that.
    first = (str(error).strip().splitlines() or [""])[0]
    return f"the answer failed with {type(error).__name__}{': ' if first else ''}{first[:MAX_REASON_CHARACTERS]}"
