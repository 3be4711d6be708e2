"""T6, T12: checkpoints whose bytes have changed on disk, or that are begun as the weights already move on."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from benchmarks.faults.counts import damaged, flip_somewhere
from benchmarks.faults.training.tiny import finish
from benchmarks.faults.training.trials import Found, Lab, Trial
from components.data.loader import PackedRows
from components.runtime.world import World
from components.training.checkpoints import load_state, tensors_of
from components.training.transformer.run import TransformerRun
from components.training.transformer.state import TransformerState, new_state
from components.training.transformer.trainer import TransformerTrainer
from core.errors import BadInput

CHANGES: dict[str, Any] = {"max_steps": 6, "checkpoint_every_steps": 3}


class Marker:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def damaged_checkpoints(lab: Lab) -> Found:
    """T6: each damage must be refused before anything is loaded, by a sentence that names the file; the one before is used."""
    run = lab.run("T6", **CHANGES)
    finish(run, 1, attempt=0)
    older, newest = sorted(run.store.glob("step-*"))
    state, files = _state(run), sorted(path for path in newest.iterdir() if path.is_file())
    num_flips = lab.number(500, 40)
    flips = [
        _refused(newest, path, flip_somewhere(path.read_bytes(), lab.generator), state)
        for path in (files[number % len(files)] for number in range(num_flips))
    ]
    trials = flips + [_refused(newest, path, data[: len(data) // 2], state) for path in files for data in [path.read_bytes()]]
    marker = lab.folder / "marker"
    trials += [_refused(newest, path, pickle.dumps(Marker(marker)), state) for path in files]
    (newest / ".metadata").write_bytes(pickle.dumps(Marker(marker)))
    _loads(newest, state)
    (newest / ".metadata").unlink()
    trials += [Trial("code ran")] if marker.exists() else []
    trials += [_falls_back(lab, run, path.name, older) for path in (files[:2] if lab.quick else files)]
    facts = {"flipped_bytes": num_flips, "flipped_bytes_found": sum(not trial.missed for trial in flips)}
    return Found(trials, facts, f"{facts['flipped_bytes_found']} of {num_flips} flipped bytes found, in {len(files)} files")


def moving_on(lab: Lab) -> Found:
    """T12: a checkpoint is begun and the next steps are taken at once; it must hold what was there when it was begun."""
    run, world, trials = lab.run("T12", **CHANGES), World(0, 1, torch.device("cpu")), list[Trial]()
    rows, validation = (PackedRows(run.latents, split, run.quarantine) for split in ("train", "validation"))
    state, loaded = _state(run), _state(run)
    trainer = TransformerTrainer(run.config, state, rows, validation, world)
    with run.resumed(state, world) as checkpointer:
        for step in range(1, 1 + lab.number(20, 3)):
            trainer.train_step(step)
            wanted = _digest(state)
            checkpointer.save(step)
            trainer.train_step(step + 1)
            checkpointer.wait()
            load_state(checkpointer.folder, loaded)
            same = _digest(loaded) == wanted != _digest(state)
            trials.append(Trial("" if same else f"the checkpoint of step {step} is not what was there when it was begun"))
    return Found(trials)


def _state(run: TransformerRun) -> TransformerState:
    torch.set_num_threads(1)
    rows = PackedRows(run.latents, "train", run.quarantine)
    return new_state(run.config, rows, World(0, 1, torch.device("cpu")))


def _refused(folder: Path, path: Path, data: bytes, state: TransformerState) -> Trial:
    before = _digest(state)
    with damaged(path, data):
        said = _loads(folder, state)
    if not said:
        return Trial(f"a damaged {path.name} was loaded", bits=1)
    if path.name not in said and "manifest" not in path.name:
        return Trial(f"{path.name} is not named: {said}")
    return Trial("" if _digest(state) == before else f"something was loaded before {path.name} was refused")


def _loads(folder: Path, state: TransformerState) -> str:
    """The sentence of the refusal; "" where it was loaded."""
    try:
        load_state(folder, state)
    except BadInput as error:
        return str(error)
    return ""


def _falls_back(lab: Lab, run: TransformerRun, name: str, older: Path) -> Trial:
    """A file is gone: the run goes on from the checkpoint before."""
    target = lab.run(f"T6-without-{name}", **CHANGES)
    shutil.copytree(run.folder, target.folder, dirs_exist_ok=True)
    (newest := target.store / sorted(path.name for path in run.store.glob("step-*"))[-1]).joinpath(name).unlink()
    shutil.rmtree(target.finished)
    finish(target, 1, attempt=1)
    said = target.lines.read_text()
    if f"checkpoint {newest.name} is passed over" in said and f"({older.name})" in said:
        return lab.judged(target, lab.reference(1, **CHANGES))
    return Trial(f"without {name}: {said[-500:]}")


def _digest(state: TransformerState) -> str:
    found = hashlib.sha256()
    for _, tensor in sorted(tensors_of(state).items()):
        found.update(tensor.detach().numpy().tobytes())
    return found.hexdigest()
