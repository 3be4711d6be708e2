"""How well pictures compose what is asked of them, cut as GenEval cuts it (arXiv 2310.11513).

GenEval reads pictures by an object detector and asks one thing of each prompt; here a digit classifier reads every object's
digit, colour and place, so that one picture answers several of the questions. A picture is right or wrong as a whole, as there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

from components.data.demonstration.scenes import Pair, SceneObject
from components.evaluation.intervals import items_of
from components.evaluation.results import Results
from components.evaluation.scenes.prompts import only_pairs
from components.evaluation.scenes.scores import Objects

# Of each cut the numbers of objects that a picture must be to show, and when what was read of it is right.
CUTS: dict[str, tuple[range, Callable[[Objects, Objects], bool]]] = {
    "one_object": (range(1, 2), lambda asked, read: _shows(asked, read, _digit)),
    "two_objects": (range(2, 3), lambda asked, read: _shows(asked, read, _digit)),
    "counting": (range(1, 5), lambda asked, read: len(asked) == len(read)),
    "colour": (range(1, 2), lambda asked, read: _shows(asked, read, _pair)),
    "position": (range(1, 5), lambda asked, read: _shows(asked, read, lambda thing: (thing.digit, thing.place))),
    "attribution": (range(2, 5), lambda asked, read: _shows(asked, read, _pair)),
}


def measure_composition(
    results: Results, family: str, asked: Sequence[Objects], read: Sequence[Objects], names: Sequence[str]
) -> None:
    """Enter the share of pictures right in each cut. family: opens the keys. names: of the pictures."""
    for cut, (numbers, is_right) in CUTS.items():
        chosen = [index for index, objects in enumerate(asked) if len(objects) in numbers]
        if chosen:
            right = [is_right(asked[index], read[index]) for index in chosen]
            results.add_items(f"{family}/{cut}", items_of([names[index] for index in chosen], right, [1] * len(chosen)))
        else:
            results.notes.append(f"no scene has a number of objects that {family}/{cut} is about")


def measure_pairs_never_shown(
    results: Results, asked: Sequence[Objects], read: Sequence[Objects], pairs: Sequence[Pair], names: Sequence[str]
) -> None:
    """Enter the share of pictures that show the pairs asked of them which training never showed."""
    right = [_shows(only_pairs(wanted, pairs), found, _pair) for wanted, found in zip(asked, read, strict=True)]
    results.add_items("composition/pairs_never_shown", items_of(names, right, [1] * len(right)))


def _shows(asked: Objects, read: Objects, kind: Callable[[SceneObject], Hashable]) -> bool:
    """Whether all that is asked was read, as often as it is asked; kind: what of an object counts. More may have been read."""
    return _counted(asked, kind) <= _counted(read, kind)


def _counted(objects: Iterable[SceneObject], kind: Callable[[SceneObject], Hashable]) -> Counter[Hashable]:
    return Counter(map(kind, objects))


def _digit(thing: SceneObject) -> int:
    return thing.digit


def _pair(thing: SceneObject) -> Pair:
    return thing.digit, thing.colour
