"""A pool of processes that outlives an item which ends the process it is in; another process takes its place.

Beside it, `map_over_actors` of actors.py, which Ray Data carries, ends the work where an item does so again and again.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from components.runtime.actors import ItemActor
from components.runtime.devices import gpu_share
from components.runtime.portable import portable
from core.errors import BadInput

Item = dict[str, Any]
# What to do where a process ended in an item: items to try in its place, and the result of it where it is given up.
AfterDeath = Callable[[Item], tuple[list[Item], Item | None]]
# Processes in a row that may end before they are ready for any item.
MAX_FAILED_STARTS = 3


def map_over_pool(
    items: Sequence[Item],
    actor_class: type[ItemActor],
    constructor_kwargs: Mapping[str, Any],
    num_actors: int,
    after_death: AfterDeath,
) -> Iterator[Item]:
    """Call an `actor_class(**constructor_kwargs)` with every item; yields the results as they are finished.

    Items and results are JSON-able dicts. Inside `start_ray`. Raises what an actor raises, as it was raised there, and
    BadInput where the processes end before they are ready.
    """
    if items:
        yield from _Pool(actor_class, constructor_kwargs, min(num_actors, len(items))).results(deque(items), after_death)


class _Pool:
    """num_actors processes. running: what each is at, by Ray's reference to its result; None where it is starting."""

    def __init__(self, actor_class: type[ItemActor], constructor_kwargs: Mapping[str, Any], num_actors: int) -> None:
        import ray

        options = {"num_cpus": 1, "num_gpus": gpu_share(num_actors), "max_restarts": 0, "max_task_retries": 0}
        self._remote: Any = ray.remote(**options)(_Process)
        self._arguments = (actor_class, dict(constructor_kwargs))
        self._running: dict[Any, tuple[Any, Item | None]] = {}
        self._num_failed_starts = 0
        for _ in range(num_actors):
            self._start()

    def results(self, waiting: deque[Item], after_death: AfterDeath) -> Iterator[Item]:
        """The results of all items, and of those that take their place."""
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        # Not for as long as any process is starting: a busy cluster may never have room for all of them.
        while waiting or any(item is not None for _, item in self._running.values()):
            (done,), _ = ray.wait(list(self._running), num_returns=1)
            actor, item = self._running.pop(done)
            try:
                answer = ray.get(done)
            except RayActorError as error:
                redone = yield from self._buried(item, error, after_death)
                waiting.extend(redone)
                if waiting:
                    self._start()
                continue
            except RayTaskError as error:
                if isinstance(error.cause, BaseException):
                    raise error.cause from error
                raise
            self._num_failed_starts = 0
            if waiting:
                given = waiting.popleft()
                self._running[actor.run.remote(json.dumps(given))] = (actor, given)
            if item is not None:
                yield json.loads(answer)
        self._running.clear()

    def _start(self) -> None:
        actor = self._remote.remote(*self._arguments)
        self._running[actor.open.remote()] = (actor, None)

    def _buried(self, item: Item | None, error: Exception, after_death: AfterDeath) -> Generator[Item, None, Sequence[Item]]:
        """Yields the result of an item that is given up; returns the items to try in its place."""
        if item is not None:
            redone, result = after_death(item)
            if result is not None:
                yield result
            return redone
        self._num_failed_starts += 1
        if self._num_failed_starts >= MAX_FAILED_STARTS:
            raise BadInput(
                f"{MAX_FAILED_STARTS} processes in a row ended while they started ({' '.join(str(error).split())[:300]}); free"
                " memory, or set TRANSFUSION_NUM_ACTORS to fewer"
            )
        return []


class _Process:
    """What runs in a process. Items and results travel as JSON, so that no type is guessed."""

    def __init__(self, actor_class: type[ItemActor], constructor_kwargs: dict[str, Any]) -> None:
        self._make = lambda: actor_class(**constructor_kwargs)

    def open(self) -> None:
        """Apart from the constructor, whose exceptions Ray turns into a sentence about a dead process."""
        with _reasons_kept():
            self._actor = self._make()

    def run(self, item: str) -> str:
        with _reasons_kept():
            return json.dumps(self._actor(json.loads(item)))


@contextmanager
def _reasons_kept() -> Iterator[None]:
    """What is raised inside reaches the driver with what it was raised from."""
    try:
        yield
    except Exception as error:
        raise portable(error) from None
