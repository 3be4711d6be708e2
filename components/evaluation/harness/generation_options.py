"""How a task of the harness wants texts to go on, as this model's own options; what it cannot do is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from core.errors import BadInput
from model.generation.requests import SamplingOptions

# Of an answer, where the task does not say how many.
USUAL_TOKENS = 256
KNOWN = ("do_sample", "temperature", "top_p", "min_p", "until", "max_gen_toks")
# Options of other models that tasks name with the value that changes nothing.
WITHOUT_EFFECT = {"num_beams": 1}


class Continuation(NamedTuple):
    """What is asked of one answer."""

    sampling: SamplingOptions
    max_new_tokens: int
    until: tuple[str, ...]
    """Strings at the first of which the answer ends."""


def continuation_of(given: Mapping[str, Any]) -> Continuation:
    """Of a request's options, as the harness passes them. Raises BadInput where one is unknown or out of its bounds."""
    from lm_eval.models.utils import normalize_gen_kwargs  # pyright: ignore[reportMissingImports]

    try:
        how = dict(normalize_gen_kwargs(dict(given), USUAL_TOKENS))
        _refuse_unknown(how)
        num_tokens = int(how["max_gen_toks"])
        if num_tokens < 1:
            raise ValueError(f"max_gen_toks: {num_tokens} must be at least 1")
        return Continuation(_sampling(how), num_tokens, tuple(str(stop) for stop in how["until"] if stop))
    except (ValueError, TypeError) as error:
        raise BadInput(
            f"the model cannot answer with these options: {error}; see the task's generation_kwargs and --gen_kwargs"
        ) from None


def _refuse_unknown(how: Mapping[str, Any]) -> None:
    others = sorted(key for key in how if key not in KNOWN and how[key] != WITHOUT_EFFECT.get(key))
    if others:
        raise ValueError(f"{', '.join(others)}: unknown here, where there are {', '.join(KNOWN)}")
    if not isinstance(how["do_sample"], bool):
        raise ValueError(f"do_sample: {how['do_sample']!r} must be true or false")


def _sampling(how: Mapping[str, Any]) -> SamplingOptions:
    temperature = float(how.get("temperature", 1.0))
    if how["do_sample"] and temperature == 0:
        # The harness's own usual options have temperature 0, which --gen_kwargs do_sample=True leaves as it is.
        raise ValueError("do_sample: true needs a temperature above 0, and it is 0")
    top_p, min_p = float(how.get("top_p", 1.0)), float(how.get("min_p", 0.0))
    sampled = SamplingOptions(num_steps=1, guidance_scale=1.0, temperature=temperature, top_p=top_p, min_p=min_p)
    return sampled if how["do_sample"] else SamplingOptions(num_steps=1, guidance_scale=1.0)
