"""The folders of a run's checkpoints: how one comes to stand among them, which are kept, and which one a run resumes from.

A checkpoint stands whole, under a manifest, or not at all: its folder gets its name when everything in it is on disk. One that
its manifest does not vouch for is passed over for the one before it. The newest two whole ones are kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from components.runtime.world import World
from core.errors import BadInput
from core.files import atomic_replace, read_json, sha256
from core.manifest import MANIFEST, read_manifest

# One more than the newest, to fall back on where its bytes have changed on disk.
NUM_KEPT = 2


def folder_of(store: Path, step: int) -> Path:
    """Where the checkpoint of `step` stands."""
    # Padded, so that names sort as steps do.
    return store / f"step-{step:08d}"


def checkpoints(store: Path) -> list[Path]:
    """The folders of the store's checkpoints, whole or not, the newest first."""
    return sorted(store.glob("step-*"), reverse=True)


def newest_step(store: Path) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    return max(_steps(store), default=0)


def stand(folder: Path, step: int) -> None:
    """Give a checkpoint, whole in a folder beside the others, its place. Then the one before it is kept and no other."""
    store = folder.parent
    atomic_replace(folder, folder_of(store, step))
    # Later steps are of a run whose checkpoints could not be loaded: this one began before them.
    older = [each for each in _steps(store) if each < step]
    _keep(store, [step, *older[: NUM_KEPT - 1]])


def resume(
    store: Path,
    *,
    check: Callable[[Path], object],
    load: Callable[[Path], object],
    say: Callable[[str], None],
    world: World,
) -> int:
    """Load the newest checkpoint whose bytes are right, on all workers together; returns its step, 0 where there is none.

    check: raises BadInput where the manifest does not vouch for a folder, or for this worker's share of its files.
    Raises BadInput on all workers where one of them does not see what worker 0 sees.
    """
    candidates = iter(_steps(store) if world.rank == 0 else ())
    # Worker 0, which holds the lock, names the step: looking for itself, another might see a checkpoint more or less.
    while step := world.agreed(next(candidates, 0)):
        folder = folder_of(store, step)
        if _is_accepted(folder, check, say, world):
            load(folder)
            if world.rank == 0:
                say(f"resumed from step {step} ({folder.name})")
                # What was passed over goes: those steps are taken again, and write their checkpoints anew.
                _keep(store, [step, *_whole_before(store, step)])
            return step
    return 0


def _is_accepted(folder: Path, check: Callable[[Path], object], say: Callable[[str], None], world: World) -> bool:
    """Whether no worker found anything wrong with its share; who found something says so."""
    seen = _number_of(folder / MANIFEST)
    # Files that one worker finds broken are so for all, and the one before may do; another folder is another mistake.
    is_strange, is_wrong = seen != world.agreed(seen), False
    try:
        if not is_strange:
            check(folder)
    except BadInput as error:
        is_wrong = True
        say(f"checkpoint {folder.name} is passed over: {error}")
    num_strange = _total(is_strange, world)
    if num_strange:
        who = f"worker {world.rank} does" if is_strange else f"{num_strange} of {world.size} workers do"
        raise BadInput(f"{who} not see {folder} as worker 0 does; all workers must see one and the same .work")
    return not _total(is_wrong, world)


def _total(found: bool, world: World) -> int:
    """How many workers found it."""
    return int(world.all_reduce(torch.tensor([int(found)], device=world.device)))


def _number_of(manifest: Path) -> int:
    """A number for its bytes, 0 where it is missing."""
    return int(sha256(manifest)[:15], 16) if manifest.is_file() else 0


def _whole_before(store: Path, step: int) -> list[int]:
    """The newest whole checkpoint before `step`. It is not read where there is nothing to choose."""
    older = [each for each in _steps(store) if each < step]
    if len(older) < NUM_KEPT:
        return older
    return next(([each] for each in older if _is_whole(folder_of(store, each))), [])


def _is_whole(folder: Path) -> bool:
    try:
        read_manifest(folder, kind=read_json(folder / MANIFEST)["kind"])
    except (BadInput, KeyError, TypeError):
        return False
    return True


def _keep(store: Path, steps: list[int]) -> None:
    """Remove the checkpoints of all other steps."""
    for step in set(_steps(store)) - set(steps):
        shutil.rmtree(folder_of(store, step))


def _steps(store: Path) -> list[int]:
    """Of all checkpoints, whole or not, the newest first."""
    return [int(folder.name.removeprefix("step-")) for folder in checkpoints(store)]
