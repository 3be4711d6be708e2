"""What worker 0 keeps of a run beside its weights: lines, the journal, MLflow, sample images and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from components.data.loader import PackedRows
from components.runtime.machine import utilisation
from components.runtime.progress import duration, short
from components.runtime.tracking import Tracker
from components.runtime.world import World
from components.training.checkpointer import Checkpointer
from components.training.pictures import save_samples, sheet_name
from components.training.transformer.image_sampler import KEPT_SHEET, SHEETS, ImageSampler
from components.training.transformer.journal import IMAGE_BY_TIME, X0_ERROR, add_to, last_values, shown_names, truncate_after
from components.training.transformer.run import FINISHED, TransformerRun
from components.training.transformer.selection import Selection
from components.training.transformer.state import TransformerState
from components.training.transformer.trainer import Callback, Losses, Progress, Validation
from components.training.whole_network import write_network
from core.files import fresh_folder, write_json
from core.manifest import write_manifest
from core.png import decode_png
from core.text import counted
from model.compiled import num_compiled
from model.loss import NUM_TIME_BANDS
from model.transfusion import Transfusion

# The run's tag that says which weights were handed on, and why.
SELECTION = "selection"
# Dense bfloat16 peaks in FLOP/s, by a word of the device's name (the makers' data sheets).
PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
    "B200": 2250e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
}


def peak_flops(device: torch.device) -> float | None:
    """The device's peak, or None where it is not known (a CPU, a GPU not in the table)."""
    # By whole words: an L40 is no L4. "NVIDIA A100-SXM4-80GB", say.
    words = torch.cuda.get_device_name(device).replace("-", " ").split() if device.type == "cuda" else []
    return next((PEAKS[word] for word in words if word in PEAKS), None)


class CheckpointCallback(Callback):
    """What every worker does: its part of each checkpoint."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        self.checkpointer = checkpointer

    def checkpoint(self, step: int, state: TransformerState) -> None:
        """Keep it in the run's folder; it is written while the next steps are taken."""
        self.checkpointer.save(step)


class RankZeroCallback(CheckpointCallback):
    """What worker 0 does with the results; it alone writes what is not a checkpoint."""

    def __init__(
        self, run: TransformerRun, validation: PackedRows, selection: Selection, world: World, checkpointer: Checkpointer
    ) -> None:
        super().__init__(checkpointer)
        self.run, self.config, self.selection, self.world = run, run.config, selection, world
        self.peak = peak_flops(world.device)
        self.elapsed_s, self.num_positions = 0.0, 0
        self.num_compiled: int | None = None
        # Of a step, in use or padded.
        self.num_slots = run.config.batch_rows * validation.row_length
        utilisation(world.device)  # percentages are of the time since the last call
        truncate_after(run.journal, checkpointer.step)
        self.tracker = Tracker(run.identity, say=run.say)
        self.sampler = ImageSampler.of_run(run, validation)
        weighed = f"the loss counts it {self.config.loss.after_image_weight:g} times after images"
        run.say(f"text: nats a token ({weighed}); held out: the averaged weights, on other documents")

    def log(self, progress: Progress) -> None:
        """Record the losses and the speed of the steps since the last call, and say them."""
        self.elapsed_s += progress.elapsed_s
        self.num_positions += progress.num_positions
        values = {
            **_values("train", progress.losses),
            **_by_time(progress.image_by_time),
            "train/learning_rate": progress.learning_rate,
            "train/gradient_norm": progress.gradient_norm,
            "perf/tokens_per_s": progress.num_positions / progress.elapsed_s,
            "perf/data_wait_share": progress.waited_s / progress.elapsed_s,
            "perf/padding_share": 1 - progress.num_positions / (progress.num_steps * self.num_slots),
        }
        compiled, self.num_compiled = self.num_compiled, num_compiled()
        values["perf/recompilations"] = recompiled = 0 if compiled is None else self.num_compiled - compiled
        if recompiled:
            self.run.say(
                f"{counted(recompiled, 'graph')} compiled anew by step {progress.step}, which took time from the steps"
            )
        if self.peak:
            values["perf/mfu"] = progress.flops / progress.elapsed_s / (self.peak * self.world.size)
        self._record(progress.step, values)
        self.tracker.metrics(utilisation(self.world.device), progress.step, once=True)
        # The longest last, because a terminal may be too narrow for it.
        losses = f"loss {progress.losses.total:.2f} | {_parts(progress.losses)}"
        self._say(progress.step, f"{self._speed(progress, values.get('perf/mfu'))} | {losses}", passes=True)

    def validated(self, step: int, validation: Validation) -> None:
        """Record them, and say those that fit a line."""
        losses, images = validation
        values = _values("validation", losses) | {f"{X0_ERROR}{level:g}": error for level, error in images.x0_error.items()}
        gap = "" if images.caption_gap is None else f" | caption gap {images.caption_gap:.2f}"
        if images.caption_gap is not None:
            values["validation/caption_gap"] = images.caption_gap
        self._record(step, values)
        self._say(step, f"held out: {_parts(losses)}{gap}")

    def sample(self, step: int, ema_model: Transfusion) -> None:
        """Generate the configured images, for a file and for MLflow."""
        selection = self.selection
        # Only after the last step is it known which are kept; where they are those of an earlier one, `finish` draws them.
        self._draw(step, ema_model, is_kept=step == selection.last_step == selection.kept_step)

    def finish(self, state: TransformerState) -> None:
        """Write the EMA weights that are handed on and the last numbers; they count once the manifest stands."""
        selection = self.selection
        state.keep_selected()
        if selection.kept_step < selection.last_step:
            self._draw(selection.kept_step, state.ema_model, is_kept=True)
        if self.config.selection.is_used:
            self.tracker.tags({SELECTION: selection.sentence()})
        self.tracker.close()
        folder = fresh_folder(self.run.finished)
        self.checkpointer.wait()  # for what was written last is what is read here
        state.ema_model.save_config(folder)
        write_network(self.checkpointer.folder, state.kept_network, folder / "model.safetensors")
        facts = last_values(self.run.journal, selection.kept_step) | {
            "steps": selection.last_step,
            "selected_step": selection.kept_step,
            "selected_because": selection.sentence(),
            "num_parameters": sum(parameter.numel() for parameter in state.model.parameters()),
        }
        if self.elapsed_s:
            facts["perf/tokens_per_s"] = self.num_positions / self.elapsed_s
        write_json(folder / "summary.json", facts)
        write_manifest(folder, kind=FINISHED, step=selection.kept_step)

    def _draw(self, step: int, ema_model: Transfusion, *, is_kept: bool) -> None:
        file = self.run.samples / sheet_name(step)
        save_samples(file, self.sampler.generate(ema_model), self.sampler.prompts)
        sheet = decode_png(file.read_bytes())
        for key in (SHEETS, KEPT_SHEET) if is_kept else (SHEETS,):
            self.tracker.image(sheet, key, step, once=True)

    def _record(self, step: int, values: dict[str, float]) -> None:
        # Steps that are taken again after a kill give the same numbers: each counts once.
        self.tracker.metrics(shown_names(values), step, once=True)
        add_to(self.run.journal, step, values)

    def _say(self, step: int, line: str, *, passes: bool = False) -> None:
        self.run.say(f"step {step}/{self.config.max_steps} | {line}", passes=passes)

    def _speed(self, progress: Progress, mfu: float | None) -> str:
        rate = progress.num_positions / progress.elapsed_s
        # Padding differs from step to step, so the time left follows from steps and not from tokens.
        seconds_a_step = progress.elapsed_s / progress.num_steps
        left_s = seconds_a_step * (self.config.max_steps - progress.step)
        share = f" | mfu {mfu:.0%}" if mfu is not None else ""
        return f"eta {duration(left_s)} | {short(rate)} tok/s{share}"


def _values(split: str, losses: Losses) -> dict[str, float]:
    """The losses by their names in the journal and in MLflow, without a place of the text that had nothing to be measured on.

    The NaN of a model that diverged stays, so that its course is seen.
    """
    places = {"text_after_image": losses.text_after_image, "text_elsewhere": losses.text_elsewhere}
    values = {"loss": losses.total, "loss_text": losses.text, "loss_image": losses.image}
    values |= {name: value for name, value in places.items() if not math.isnan(value)}
    return {f"{split}/{name}": value for name, value in values.items()}


def _by_time(errors: Sequence[float]) -> dict[str, float]:
    """The images' loss by bands of noise levels, for curves alone: which part of denoising is still being learnt."""
    bands = [f"{band / NUM_TIME_BANDS:g}-{(band + 1) / NUM_TIME_BANDS:g}" for band in range(NUM_TIME_BANDS)]
    found = dict(zip(bands, errors, strict=True))
    return {f"{IMAGE_BY_TIME}{band}": value for band, value in found.items() if not math.isnan(value)}


def _parts(losses: Losses) -> str:
    """What compares between training and held-out rows: the text by its place, for its mean is over other proportions."""
    places = [(losses.text_after_image, "after images"), (losses.text_elsewhere, "elsewhere")]
    text = ", ".join(f"{value:.2f} {place}" for value, place in places if not math.isnan(value))
    return f"image {losses.image:.2f} | text {text or f'{losses.text:.2f}'}"
