"""Drawn changes that change nothing which a test could see, each with the reason.

They run like all others: one that a test does notice was listed wrongly, and fails the run. Where the line is no longer in its
module, the list has to follow (tests/mutants/test_mutants.py).
"""

from __future__ import annotations

from typing import NamedTuple


class Equivalent(NamedTuple):
    """what: the line before and after, as a run prints it. why: it makes no difference."""

    module: str
    what: str
    why: str

    @property
    def line(self) -> str:
        """The line as it stands in the module."""
        return self.what.split(" -> ")[0]


EQUIVALENT = (
    Equivalent(
        "core/png.py",
        "level = 6 if len(pixels) <= 64 else 1 -> level = 6 if len(pixels) <= 63 else 1",
        "how long one size of picture is packed, not what comes out of it",
    ),
    Equivalent(
        "model/attention/math.py",
        "MAX_KEYS = 768 -> MAX_KEYS = 767",
        "above it another kernel computes the same",
    ),
    Equivalent(
        "model/experts.py",
        "text_positions = is_text.argsort(descending=True, stable=True)[:num_text]"
        " -> text_positions = is_text.argsort(descending=True, stable=False)[:num_text]",
        "whatever order the positions come in is undone behind the experts",
    ),
    Equivalent(
        "components/data/encode/latents.py",
        "measured = finite and len(latents) > 0 -> measured = finite and len(latents) != 0",
        "a length is never negative",
    ),
    Equivalent(
        "model/diffusion/noise.py",
        "if snr_gamma == 0: -> if snr_gamma <= 0:",
        "the configuration refuses a negative gamma",
    ),
    Equivalent(
        "model/generation/token_choice.py",
        "probability = torch.softmax(logits.double() / temperature, dim=-1)"
        " -> probability = torch.softmax(logits.double() / temperature, dim=+1)",
        "logits have two axes, so that the last one is axis 1",
    ),
    Equivalent(
        "model/generation/token_choice.py",
        "kept = torch.where(keep(probability, top_p=top_p, min_p=min_p), probability, 0.0).cumsum(dim=-1)"
        " -> kept = torch.where(keep(probability, top_p=top_p, min_p=min_p), probability, 0.0).cumsum(dim=+1)",
        "probabilities have two axes, so that the last one is axis 1",
    ),
    Equivalent(
        "components/data/encode/packing.py",
        "LONGEST_LOOKED_AT, SHORTEST_LOOKED_AT = 192, 64 -> LONGEST_LOOKED_AT, SHORTEST_LOOKED_AT = 193, 64",
        "how far a search looks, by one length; what is held is how full the rows get",
    ),
    Equivalent(
        "model/generation/eager.py",
        "if len(slots.graphs) < MAX_GRAPHS: -> if not len(slots.graphs) < MAX_GRAPHS:",
        "CUDA graphs: tests/model/generation/test_eager.py holds them where there is a GPU",
    ),
    Equivalent(
        "model/generation/eager.py",
        'dtype = torch.float32 if self.device.type == "cpu" else weight.dtype'
        ' -> dtype = torch.float32 if self.device.type <= "cpu" else weight.dtype',
        "every other device that torch has a name for comes behind it in the alphabet",
    ),
    Equivalent(
        "model/loss_options.py",
        "time_std=1.0, -> time_std= 2.0,",
        "uniform noise levels use none",
    ),
    Equivalent(
        "model/transfusion.py",
        "route = route_of_step(inputs.token_type_ids, num_experts) if num_experts > 1 else shared"
        " -> route = route_of_step(inputs.token_type_ids, num_experts) if num_experts >= 1 else shared",
        "with one set of weights every route leads there",
    ),
)


def reasons() -> dict[tuple[str, str], str]:
    """(module, what) -> why."""
    return {(one.module, one.what): one.why for one in EQUIVALENT}
