"""A pool of processes on the cluster of `cluster.start_ray`, each with an object of its own that items are sent to.

Ray Data gives an item that ends its process to one process after another without end. Tries are counted here, and bounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from components.runtime.devices import gpu_share
from components.runtime.diagnosis import sentence_of
from components.runtime.tries import MAX_TRIES, Tries
from core.errors import BadInput, WorkersFailed
from core.files import fresh_folder, remove

STARTS = "starts"


class ItemActor(Protocol):
    """What `map_over_actors` runs: built once in each process, then called with one item after another."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]: ...


class ItemEndsProcesses(WorkersFailed):
    """`item` ended the process it was in, MAX_TRIES times."""

    def __init__(self, item: dict[str, Any]) -> None:
        super().__init__(f"{item} ended the process it was in {MAX_TRIES} times")
        self.item = item


def map_over_actors(
    items: Sequence[dict[str, Any]],
    actor_class: type[ItemActor],
    constructor_kwargs: Mapping[str, Any],
    num_actors: int,
    tries: Path,
) -> Iterator[dict[str, Any]]:
    """Call an `actor_class(**constructor_kwargs)` with every item; yields the results as they are finished.

    Items and results are JSON-able dicts; give them a key to restore the order by. tries: a folder that all processes see
    and nothing else uses; it is emptied, and removed at the end. Inside `start_ray`. BadInput where an actor meets what a
    user can mend, ItemEndsProcesses where an item ends one process after another, and WorkersFailed where the processes end
    before they are ready.
    """
    import ray.data

    if not items:
        return
    num_actors = min(num_actors, len(items))
    rows = [{"number": number, "json": json.dumps(item)} for number, item in enumerate(items)]
    results = ray.data.from_items(rows, override_num_blocks=len(items)).map(
        cast(Any, JsonActor),  # Ray takes a class too, and its annotation does not say so
        fn_constructor_kwargs={
            "actor_class": actor_class,
            "constructor_kwargs": dict(constructor_kwargs),
            "tries": Tries(fresh_folder(tries).absolute()),
            # Starts that have not ended: all processes may be at one, and MAX_TRIES - 1 may have ended in it.
            "max_starts": num_actors + MAX_TRIES - 1,
        },
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        num_cpus=1,
        num_gpus=gpu_share(num_actors),
    )
    try:
        for row in results.iter_rows():
            yield _result(row, items)
    finally:
        remove(tries)


def _result(row: dict[str, Any], items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if row["given_up"]:
        raise ItemEndsProcesses(items[row["number"]])
    if row["never_ready"]:
        raise WorkersFailed(
            "one process after another ended while it started (a crash, or more memory than there is); free memory, or set "
            "TRANSFUSION_NUM_ACTORS to fewer; finished work is kept, run again to go on"
        )
    if row["failed"]:
        raise BadInput(row["failed"])
    return json.loads(row["json"])


class JsonActor:
    """Carries items to an actor and results back as JSON, so that no column's type is guessed from the first rows.

    What the actor raises and a user can mend comes back as its sentence: Ray brings an exception without its cause.
    """

    def __init__(self, actor_class: type[ItemActor], constructor_kwargs: dict[str, Any], tries: Tries, max_starts: int) -> None:
        self.actor, self.failed, self.tries, self.max_starts = cast(ItemActor, None), "", tries, max_starts
        self.make = lambda: actor_class(**constructor_kwargs)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        answer = {"number": row["number"], "json": "", "failed": "", "given_up": False, "never_ready": not self._start()}
        if self.failed or answer["never_ready"]:
            return answer | {"failed": self.failed}
        name = f"item-{row['number']}"
        try:
            # Only what is begun counts: items that wait for a process which another one ends are not to blame.
            if self.tries.begin(name) > MAX_TRIES:
                return answer | {"given_up": True}
            answer["json"] = json.dumps(self.actor(json.loads(row["json"])))
        except Exception as error:
            answer["failed"] = _sentence_or_raise(error)
        self.tries.end(name)
        self.tries.end(STARTS)  # the work gets on, whether or not there is room for another process
        return answer

    def _start(self) -> bool:
        """Build the actor, once; False where one process after another ended in that.

        Not while Ray builds this object: a process that ends then is not replaced as one that ends in its work is.
        """
        if self.actor is not None or self.failed:
            return True
        try:
            if self.tries.begin(STARTS) > self.max_starts:
                return False
            self.actor = self.make()
        except Exception as error:
            self.failed = _sentence_or_raise(error)
        self.tries.end(STARTS)
        return True


def _sentence_or_raise(error: Exception) -> str:
    """The sentence of an exception that is being handled; a fault of ours goes on its way."""
    sentence = sentence_of(error)
    if sentence is None:
        raise error
    return sentence
