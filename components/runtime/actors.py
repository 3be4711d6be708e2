"""A pool of processes on the cluster of `cluster.start_ray`, each with an object of its own that items are sent to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

from components.runtime.diagnosis import sentence_of
from components.runtime.failure import BadInput


class ItemActor(Protocol):
    """What `map_over_actors` runs: built once in each process, then called with one item after another."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]: ...


def map_over_actors(
    items: Sequence[dict[str, Any]],
    actor_class: type[ItemActor],
    constructor_kwargs: Mapping[str, Any],
    num_actors: int,
) -> Iterator[dict[str, Any]]:
    """Call an `actor_class(**constructor_kwargs)` with every item; yields the results as they are finished.

    Items and results are JSON-able dicts; give them a key to restore the order by. Inside `start_ray`. BadInput where an actor
    meets what a user can mend.
    """
    import ray.data
    import torch

    if not items:
        return
    num_actors = min(num_actors, len(items))
    num_gpus = torch.cuda.device_count() / num_actors if torch.cuda.is_available() else 0
    lines = ray.data.from_items([{"json": json.dumps(item)} for item in items], override_num_blocks=len(items))
    results = lines.map(
        cast(Any, JsonActor),  # Ray takes a class too, and its annotation does not say so
        fn_constructor_kwargs={"actor_class": actor_class, "constructor_kwargs": dict(constructor_kwargs)},
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        num_cpus=1,
        num_gpus=min(1, num_gpus),
    )
    for row in results.iter_rows():
        if row["failed"]:
            raise BadInput(row["failed"])
        yield json.loads(row["json"])


class JsonActor:
    """Carries items to an actor and results back as JSON, so that no column's type is guessed from the first rows.

    What the actor raises and a user can mend comes back as its sentence: Ray brings an exception without its cause.
    """

    def __init__(self, actor_class: type[ItemActor], constructor_kwargs: dict[str, Any]) -> None:
        self.actor, self.failed = cast(ItemActor, None), ""
        try:
            self.actor = actor_class(**constructor_kwargs)
        except Exception as error:
            self.failed = _sentence_or_raise(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        if self.failed:
            return {"json": "", "failed": self.failed}
        try:
            return {"json": json.dumps(self.actor(json.loads(row["json"]))), "failed": ""}
        except Exception as error:
            return {"json": "", "failed": _sentence_or_raise(error)}


def _sentence_or_raise(error: Exception) -> str:
    """The sentence of an exception that is being handled; a fault of ours goes on its way."""
    sentence = sentence_of(error)
    if sentence is None:
        raise error
    return sentence
