"""Captions in the manner of COCO's, generated and of the corpus, and what COCO's own evaluation says of them.

The scores are those of pycocoevalcap 1.2 (`Cider`, `Rouge` and `Bleu(4)`, .compute_score over these strings); its package is
104 MB, most of it Java for scores that are not measured here, so the tests hold its numbers and not the package.
"""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """One picture."""

    generated: str
    references: tuple[str, ...]
    cider: float
    rouge_l: float


EXAMPLES = (
    Example(
        "a man riding a wave on a surfboard",
        ("a man riding a wave on top of a surfboard", "a surfer rides a large wave", "man on a surfboard in the ocean"),
        3.1870314701198916,
        0.8714285714285713,
    ),
    Example(
        "a dog dog dog on the grass",
        ("a brown dog runs on the grass", "a dog on the grass"),
        3.3230211616345224,
        0.8591549295774649,
    ),
    Example("two cats sleeping on a red couch", ("two cats sleeping on a red couch",), 10.0, 1.0),
    Example(
        "a red bus on a street",
        ("a red double decker bus drives down the street", "a bus on a city street"),
        2.362543998861871,
        0.8333333333333334,
    ),
    Example(
        "a plate of food",
        ("a plate of pasta with a fork on a wooden table", "pasta on a plate", "a plate of food on a table"),
        3.14154276118004,
        0.693181818181818,
    ),
    Example(
        "a group of people standing on a beach near the ocean with surfboards and umbrellas",
        ("people on a beach",),
        0.40388154552135436,
        0.4701348747591522,
    ),
    Example("train", ("a train at a station", "train"), 1.8278824439052763, 1.0),
    Example(
        "a clock tower in the middle of a city",
        ("a kitchen with a stove and a sink", "the sink of a kitchen"),
        0.14411433412462366,
        0.4518518518518518,
    ),
    Example("", ("a boy with a kite", "a boy flies a kite in a park"), 0.0, 0.0),
    Example(
        "a giraffe standing in a field of grass",
        ("a giraffe standing in a field of tall grass", "giraffe in a field", "a tall giraffe"),
        3.7740807493143724,
        1.0,
    ),
    Example(
        "bird a on branch sitting",
        ("a bird sitting on a branch", "a small bird on a branch of a tree"),
        1.807483089015498,
        0.5366568914956013,
    ),
    Example(
        "a woman holding an umbrella in the rain",
        ("a woman holds an umbrella in the rain", "a woman with an umbrella"),
        4.241269935347021,
        0.875,
    ),
)
# Of all of them together.
BLEU_4 = 0.48674727557389275
