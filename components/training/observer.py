"""Callbacks of the loop: worker 0 writes lines, MLflow, pictures and checkpoints; the others keep in step with it."""

from __future__ import annotations

from components.data.loader import PackedRows
from components.runtime.progress import duration, short
from components.runtime.tracking import Tracker
from components.runtime.workers import World
from components.training.checkpoints import TrainingState, save_checkpoint
from components.training.flops import peak_flops
from components.training.journal import add_to, last_values, truncate_after
from components.training.loop import Losses, Progress
from components.training.pictures import save_grid
from components.training.samples import Artist, image_key
from components.training.work import FINISHED, Work
from core.files import fresh_folder, write_json
from core.manifest import write_manifest
from model.transfusion import Transfusion

PICTURES_A_LINE = 4


class Witness:
    """The Events of workers other than 0."""

    def log(self, progress: Progress) -> None: ...

    def validated(self, step: int, losses: Losses) -> None: ...

    def sample(self, step: int, ema_model: Transfusion) -> None: ...

    def checkpoint(self, step: int, state: TrainingState) -> None: ...


class Observer:
    """The Events of worker 0."""

    def __init__(self, work: Work, rows: PackedRows, world: World, *, resumed_from: int) -> None:
        self.work, self.config, self.world = work, work.config, world
        self.peak = peak_flops(world.device)
        self.elapsed_s, self.num_positions = 0.0, 0
        truncate_after(work.journal, resumed_from)
        self.tracker = Tracker(work.run, say=work.say)
        self.artist = Artist(
            self.config.sampling,
            tokenizer=work.tokenizer,
            autoencoder=work.autoencoder,
            latent_shape=rows.latent_shape,
            seed=self.config.seed,
        )

    def log(self, progress: Progress) -> None:
        """Record the losses and the speed of the steps since the last call, and say them."""
        self.elapsed_s += progress.elapsed_s
        self.num_positions += progress.num_positions
        values = {
            "train/loss": progress.losses.total,
            "train/loss_text": progress.losses.text,
            "train/loss_image": progress.losses.image,
            "train/learning_rate": progress.learning_rate,
            "train/gradient_norm": progress.gradient_norm,
            "perf/tokens_per_s": progress.num_positions / progress.elapsed_s,
        }
        if self.peak:
            values["perf/mfu"] = progress.flops / progress.elapsed_s / (self.peak * self.world.size)
        self._record(progress.step, values)
        self._say(progress.step, f"{_losses(progress.losses)} | {self._speed(progress, values.get('perf/mfu'))}")

    def validated(self, step: int, losses: Losses) -> None:
        names = ("validation/loss", "validation/loss_text", "validation/loss_image")
        self._record(step, dict(zip(names, losses, strict=True)))
        self._say(step, f"held out: {_losses(losses)}")

    def sample(self, step: int, ema_model: Transfusion) -> None:
        pictures = self.artist.draw(ema_model)
        save_grid(self.work.samples, list(pictures.split(PICTURES_A_LINE)))
        for index, (prompt, picture) in enumerate(zip(self.artist.prompts, pictures, strict=True)):
            self.tracker.image(picture.numpy(), image_key(index, prompt), step, once=True)

    def checkpoint(self, step: int, state: TrainingState) -> None:
        save_checkpoint(self.work.store, state, step)

    def finish(self, state: TrainingState) -> None:
        """Write the EMA weights and the last numbers; they count once the manifest stands."""
        self.tracker.close()
        folder = fresh_folder(self.work.finished)
        state.ema_model.save_pretrained(folder)
        facts = last_values(self.work.journal) | {
            "steps": self.config.max_steps,
            "num_parameters": sum(parameter.numel() for parameter in state.model.parameters()),
        }
        if self.elapsed_s:
            facts["perf/tokens_per_s"] = self.num_positions / self.elapsed_s
        write_json(folder / "summary.json", facts)
        write_manifest(folder, kind=FINISHED, step=self.config.max_steps)

    def _record(self, step: int, values: dict[str, float]) -> None:
        # Steps that are taken again after a kill give the same numbers: each counts once.
        self.tracker.metrics(values, step, once=True)
        add_to(self.work.journal, step, values)

    def _say(self, step: int, line: str) -> None:
        self.work.say(f"step {step}/{self.config.max_steps} | {line}")

    def _speed(self, progress: Progress, mfu: float | None) -> str:
        rate = progress.num_positions / progress.elapsed_s
        # Padding differs from step to step, so the time left follows from steps and not from tokens.
        seconds_a_step = progress.elapsed_s / progress.num_steps
        left_s = seconds_a_step * (self.config.max_steps - progress.step)
        share = f" | mfu {mfu:.0%}" if mfu is not None else ""
        return f"{short(rate)} tok/s{share} | eta {duration(left_s)}"


def _losses(losses: Losses) -> str:
    return f"loss {losses.total:.2f} (text {losses.text:.2f} image {losses.image:.2f})"
