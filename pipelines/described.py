"""What MLflow's pages say of a run: its name, the few parameters that people compare, and what this run changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.runtime.provenance import committed
from components.runtime.tracking import About, flatten
from components.training.transformer.pretrained_files import PRETRAINED
from core.text import plural
from pipelines import paths
from pipelines.params import ParamsError, load
from pipelines.sections import Params

# Always logged, so that runs have columns to be compared by; every other parameter only where a run changed it.
COMPARED = (
    "train.model.preset",
    "train.model.prediction_type",
    "train.optimiser",
    "train.learning_rate",
    "train.batch_rows",
    "train.max_steps",
    "train.seed",
)
# The sections that decide what a training learns.
BEFORE = ("ingest", "validate", "autoencoder", "encode", "train")
LONGEST = 100
# Parameter -> its committed value, and its own.
Changes = dict[str, tuple[Any, Any]]


def training(params: Params, digests: Mapping[str, str] | None = None) -> About:
    """Of a run that trains with these parameters. digests: of what decides its weights."""
    changed = changes(params, BEFORE)
    what = training_name(params)
    corpora = ", ".join(corpus.name for corpus in params.ingest.corpora)
    note = [
        f"Trains **{what}** on {corpora}.",
        f"{said(changed)} All parameters: the artifact `{paths.PARAMS}`.",
        "Losses and sample pictures are under *Model metrics*; speed, processor and memory under *System metrics*. Evaluations "
        "of this model are runs of their own, below this one in the list of runs.",
    ]
    facts = {"corpora": corpora} | compared(params, COMPARED, changed)
    if digests and PRETRAINED in digests:
        facts |= {"train.pretrained": params.train.pretrained, "train.pretrained_sha256": digests[PRETRAINED]}
    return About(what, facts, yaml_of(params), "\n\n".join(note))


def training_name(params: Params) -> str:
    """What is trained, in a few words: "demo flow, 1,500 steps, seed 17"."""
    train = params.train
    steps = f"{train.max_steps:,} {plural(train.max_steps, 'step')}"
    return f"{train.model.preset} {train.model.prediction_type}, {steps}, seed {train.seed}"


def changes(params: Params, sections: Sequence[str]) -> Changes | None:
    """What differs from the committed parameters; None where no usable ones were committed."""
    before = _committed()
    if before is None:
        return None
    old, new = (flatten({name: asdict(tree)[name] for name in sections}) for tree in (before, params))
    return {key: (old.get(key), value) for key, value in new.items() if old.get(key) != value}


def compared(params: Params, always: Sequence[str], changed: Changes | None) -> dict[str, Any]:
    """The parameters of these names, and those that were changed."""
    flat = flatten(asdict(params))
    return {key: flat[key] for key in (*always, *(changed or ()))}


def said(changed: Changes | None) -> str:
    """The changes as Markdown."""
    if changed is None:
        return f"No `{paths.PARAMS}` of this version was committed, so what this run changed is not known."
    each = (change for key, (old, new) in changed.items() for change in _told(key, old, new))
    return f"Changed against the committed `{paths.PARAMS}`: {', '.join(each) or 'nothing'}."


def _told(key: str, old: Any, new: Any) -> list[str]:
    """A change in words; of a list of things with names (corpora), what differs by name: the whole is too long to be read."""
    if not (_named(old) and _named(new)):
        return [f"`{key}` {_short(old)} -> {_short(new)}"]
    before, after = ({each["name"]: flatten(each) for each in things} for things in (old, new))
    told = [f"`{key}` without {name}" for name in before.keys() - after.keys()]
    told += [f"`{key}` with {name}" for name in after.keys() - before.keys()]
    for name in before.keys() & after.keys():
        for field, value in after[name].items():
            if (was := before[name].get(field)) != value:
                told.append(f"`{key}.{name}.{field}` {_short(was)} -> {_short(value)}")
    return sorted(told) or [f"`{key}` in another order"]


def _named(value: Any) -> bool:
    return (
        isinstance(value, list | tuple) and all(isinstance(each, Mapping) and "name" in each for each in value) and bool(value)
    )


def _short(value: Any) -> str:
    return text if len(text := str(value)) <= LONGEST else f"{text[:LONGEST]}..."


def _committed() -> Params | None:
    text = committed(paths.PARAMS)
    if text is None:
        return None
    with TemporaryDirectory() as folder:
        copy = Path(folder) / paths.PARAMS.name
        copy.write_text(text)
        try:
            return load(copy)
        except ParamsError:  # of another version of the code
            return None


def yaml_of(params: Params) -> str:
    """Every parameter, as params.yaml has them."""
    from ruamel.yaml import YAML

    text = StringIO()
    YAML(typ="safe", pure=True).dump(_plain(asdict(params)), text)
    return text.getvalue()


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML knows."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
