"""What each recipe reaches on this project's corpora: trained by the pipeline's own loop, measured by its own evaluation.

python -m benchmarks.recipes                       # every recipe with three seeds: hours; each result is kept as it comes
python -m benchmarks.recipes --only flow,v --seeds 17

Needs the stages before `train` (`dvc repro encode validate`). A training that is cut off goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.command import Result, keep, some_of
from components.data.loader import PackedRows
from components.evaluation.suite import measure
from components.runtime.cluster import device
from components.runtime.world import World
from components.training.checkpointer import Checkpointer
from components.training.run_folder import RunFolder
from components.training.transformer.config import TrainConfig
from components.training.transformer.state import TransformerState, new_state
from components.training.transformer.trainer import Callback, Progress, TransformerTrainer, Validation
from core.errors import BadInput
from core.files import digest, read_json
from core.manifest import MANIFEST
from model.transfusion import Transfusion
from pipelines import paths
from pipelines.evaluation_inputs import read_data, target_of
from pipelines.params import ParamsError, load
from pipelines.sections import Params

OUT = Path("benchmarks/results/recipes.json")
WORK = Path(".work/recipes")
PARAMS = Path("params.yaml")
PAPER = Path("pipelines/recipes/paper.args")
# The finest level first; a patch of side 1, 2, 4 or 8 takes so many of them.
UNET_CHANNELS, LEVELS = (64, 128, 256, 256), {1: 1, 2: 2, 4: 3, 8: 4}

# By name, what each changes of params.yaml (the paper's: of what its file makes of it); `overrides` adds what is not known yet.
RECIPES: dict[str, tuple[str, ...]] = {
    "flow": (),
    "x": ("train.model.prediction_type=x",),
    "v": ("train.model.prediction_type=v",),
    "epsilon": ("train.model.prediction_type=epsilon",),
    "unet": ("train.model.patch_layers=unet",),
    "adamw": ("train.optimiser=adamw",),
    "wsd": ("train.schedule.kind=wsd",),
    "paper": (),
    "paper_linear": ("train.model.patch_layers=linear", "train.model.unet_channels=[]"),
}
# The columns of the printed table.
SHOWN = {
    "objects": "text_to_image/objects_right",
    "kept out": "text_to_image/objects_right_kept_out",
    "scenes": "text_to_image/scenes_right",
    "captions": "image_to_text/objects_right",
    "bits/byte": "text/bits_per_byte",
    "gap": "conditioning/wrong_caption_gap",
}


class Printed(Callback):
    """Lines of progress, and a checkpoint now and then."""

    def __init__(self, name: str, checkpointer: Checkpointer) -> None:
        self.name, self.checkpointer = name, checkpointer

    def log(self, progress: Progress) -> None:
        """One line."""
        text, image, seconds = progress.losses.text, progress.losses.image, progress.elapsed_s / progress.num_steps
        print(f"{self.name} | step {progress.step} | text {text:.3f} image {image:.3f} | {seconds:.2f} s a step", flush=True)

    def validated(self, step: int, validation: Validation) -> None:
        """One line."""
        losses = validation.losses
        print(f"{self.name} | step {step} | held out: text {losses.text:.3f} image {losses.image:.3f}", flush=True)

    def checkpoint(self, step: int, state: TransformerState) -> None:
        """Keep it, to go on from."""
        self.checkpointer.save(step)


def main(arguments: Sequence[str]) -> int:
    """Run what is missing, and print the table."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    try:
        for name in options.only:
            for seed in options.seeds:
                print(table(measured(name, seed, options.out)), flush=True)
    except (BadInput, ParamsError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    made.add_argument("--only", type=some_of(RECIPES, "recipe"), default=list(RECIPES), help=f"of {', '.join(RECIPES)}")
    made.add_argument("--seeds", type=lambda text: [int(each) for each in text.split(",")], default=[17, 18, 19])
    made.add_argument("--threads", type=int, default=0, help="torch's own number without")
    made.add_argument("--out", type=Path, default=OUT)
    return made


def measured(name: str, seed: int, out: Path) -> Result:
    """All results so far, with this one in them: trained and evaluated unless it is there already."""
    params = load(PARAMS, [*overrides(name), f"train.seed={seed}"])
    known = digest([asdict(params.train), asdict(params.evaluate)])
    if out.exists() and read_json(out)["recipes"].get(name, {}).get(str(seed), {}).get("digest") == known:
        return read_json(out)
    figures = evaluated(params, trained(f"{name}, seed {seed}", params.train, WORK / known[:16]))
    entry = {"digest": known, "metrics": figures, "machine": machine.describe(torch.get_num_threads())}
    return keep({"recipes": {name: {str(seed): entry}}}, out, merged)


def overrides(name: str) -> list[str]:
    """Of params.yaml, `section.key=value`; the paper's from their file, and the U-Net's widths for the latents' patch side."""
    lines = PAPER.read_text().splitlines() if name.startswith("paper") else []
    changed = [line.removeprefix("-S ") for line in lines if line and not line.startswith("#")] + list(RECIPES[name])
    if name in ("unet", "paper"):
        channels = UNET_CHANNELS[: LEVELS[load(PARAMS).train.model.patch_side]]
        changed.append(f"train.model.unet_channels={list(channels)}")
    return changed


def trained(name: str, config: TrainConfig, folder: Path) -> Transfusion:
    """The averaged weights that training hands on; one worker, on the CPU or the GPU that there is."""
    folder.mkdir(parents=True, exist_ok=True)
    world = World(0, 1, device())
    rows, validation = (
        PackedRows(paths.LATENTS, split, paths.QUARANTINE / "latents.jsonl") for split in ("train", "validation")
    )
    state, run = new_state(config, rows, world), RunFolder(folder=folder.absolute())
    often = replace(config, checkpoint_every_steps=min(100, config.checkpoint_every_steps))
    trainer = TransformerTrainer(often, state, rows, validation, world)
    with run.resumed(state, world) as checkpointer:
        trainer.run(trainer.schedule(Printed(name, checkpointer)), first_step=checkpointer.first_step)
    state.keep_selected()
    return state.ema_model.eval()


def evaluated(params: Params, model: Transfusion) -> dict[str, float]:
    """Every metric of the evaluation."""
    held_out, training = read_data(params)
    kept_out = [(digit, colour) for digit, colour in read_json(paths.DOCUMENTS / MANIFEST)["kept_out_pairs"]]
    return measure(target_of(model, {}), held_out, training, kept_out, params.evaluate).metrics


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> Result:
    """Seed by seed."""
    names = old["recipes"].keys() | new["recipes"].keys()
    return {"recipes": {name: old["recipes"].get(name, {}) | new["recipes"].get(name, {}) for name in sorted(names)}}


def table(result: Result) -> str:
    """Means over the seeds, and the smallest and largest of them."""
    lines = ["".join(f"{heading:>24}" for heading in ("recipe (seeds)", *SHOWN))]
    for name, seeds in result["recipes"].items():
        columns = map(partial(spread, [entry["metrics"] for entry in seeds.values()]), SHOWN.values())
        lines.append("".join(f"{cell:>24}" for cell in (f"{name} ({len(seeds)})", *columns)))
    return "\n".join(lines)


def spread(metrics: Sequence[Mapping[str, float]], key: str) -> str:
    """The mean of a metric, and its range."""
    values = [each[key] for each in metrics if key in each]
    if not values:
        return "-"
    return f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
