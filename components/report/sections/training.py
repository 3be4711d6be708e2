"""The training: losses over steps and over noise levels, and pictures as they came to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from components.report.blocks import Charts, Heading, Picture, Section, Sheets, Text
from components.report.charts import Chart, Series, chart
from components.report.figures import curve_of, name_of, over
from components.report.numbers import number
from components.report.run_files import Run

# Of the tables of a training: a column, and what it is.
LOSSES = {
    "image": "Images: squared error",
    "text_after_image": "Text after images: nats a token",
    "text_elsewhere": "Other text: nats a token",
    "learning_rate": "Learning rate",
}
TABLES = {"history.csv": ("training", 0, False), "validation.csv": ("held out", 1, True)}
# Before a noise level in the names of columns.
LEVEL, NUM_COLOURS = "x0_error_", 5
DIFFUSION = {"right_caption": "own caption", "wrong_caption": "another's caption"}


def training(run: Run) -> Section | None:
    """None where nothing was trained."""
    blocks = [*_losses(run), *_sheets(run), *_autoencoder(run)]
    return Section("training", "Training", blocks) if blocks else None


def noise_levels(run: Run) -> Section | None:
    """None where no picture was held out."""
    charts = [_diffusion(run), _clean_latent(run), _gap(run)]
    if not any(charts):
        return None
    said = (
        "Held-out images under more and more noise, each behind its own caption and behind another's: where the curves part,"
        " the caption decides. Errors of clean latents compare between models of any prediction type."
    )
    return Section("noise-levels", "Losses by noise level", [Text(said), Charts(charts)])


def _losses(run: Run) -> Iterator[Any]:
    tables = {file: run.columns(f"train/{file}") for file in TABLES}
    charts = [
        chart(
            what, "optimiser step", [line for file, table in tables.items() for line in _lines(file, table, column)], log=True
        )
        for column, what in LOSSES.items()
    ]
    facts = run.read("train/metrics.json")
    if facts:
        speed = facts.get("perf/tokens_per_s")
        said = f"{number(facts['num_parameters'])} parameters, {number(facts['steps'])} steps"
        yield Text(said + (f", {number(round(speed))} positions a second." if speed else "."))
        if because := facts.get("selected_because"):
            yield Text(f"{because[0].upper()}{because[1:]}.")
    if any(charts):
        yield Text(f"Losses fall fast and then slowly, so {_axes(charts)}. Held out: the averaged weights, other documents.")
        yield Charts(charts)
    yield from _while_training(tables["validation.csv"])


def _axes(charts: Sequence[Chart | None]) -> str:
    plain = [each.title for each in charts if each and not each.log]
    return "their axis is logarithmic" + (f", but not where a value is 0 or less ({'; '.join(plain)})" if plain else "")


def _lines(file: str, table: dict[str, list[float | None]], column: str) -> list[Series]:
    points = [
        (step, value)
        for step, value in zip(table.get("step", []), table.get(column, []), strict=False)
        if step is not None and value is not None
    ]
    name, colour, dashed = TABLES[file]
    return [Series(name, points, colour=colour, dashed=dashed)] if points else []


def _while_training(table: dict[str, list[float | None]]) -> Iterator[Any]:
    """Held-out errors by noise level, and other scores, where the training measured them."""
    levels = [name for name in table if name.startswith(LEVEL)]
    errors = [
        line._replace(name=f"noise {level.removeprefix(LEVEL)}", colour=number_ % NUM_COLOURS, dashed=False)
        for number_, level in enumerate(levels)
        for line in _lines("validation.csv", table, level)
    ]
    others = [name for name in table if name not in {"step", "loss", "text", *LOSSES, *levels}]
    charts = [chart("Error of the clean latent, held out", "optimiser step", errors, log=True)]
    charts += [chart(name_of(name).capitalize(), "optimiser step", _lines("validation.csv", table, name)) for name in others]
    if any(charts):
        yield Heading("Measured while training")
        yield Charts(charts)


def _sheets(run: Run) -> Iterator[Any]:
    files = sorted((run.reports / "train/samples").glob("step-*.png"))
    names = [f"train/samples/{path.name}" for path in files] or ["train/samples.png"]
    sheets, kept = [], run.read("train/metrics.json").get("selected_step")
    for name in names:
        step = name.rpartition("step-")[2].removesuffix(".png")
        title = f"After {number(int(step))} steps" if step.isdecimal() else "After the last step"
        title = "Before the first step" if step.strip("0") == "" else title
        # Where the last weights are the ones, as they are without a selection, nothing needs to be said.
        title += ", the weights that were kept" if step.isdecimal() and int(step) == kept and name != names[-1] else ""
        if uri := run.picture(name):
            sheets.append((title, Picture(uri, f"pictures of the sample prompts, {title.lower()}")))
    if sheets:
        yield Heading("Pictures over training")
        prompts = run.settings.get("train", {}).get("sampling", {}).get("prompts", ())
        said = f" The prompts: {'; '.join(prompts)}." if prompts else ""
        yield Text(f"Always of the same prompts and the same noise.{said}")
        yield Sheets(sheets)


def _autoencoder(run: Run) -> Iterator[Any]:
    facts = run.read("autoencoder/metrics.json")
    if not facts:
        return
    yield Heading("The autoencoder")
    yield Text(
        f"{facts['psnr_db']:.1f} dB on {number(facts['num_held_out_images'])} held-out pictures;"
        f" {facts['latent_channels']} channels, {facts['pixels_per_latent']} pixels a latent each way."
    )
    if uri := run.picture("autoencoder/reconstructions.png"):
        alt = "held-out pictures, and the same encoded and decoded"
        yield Sheets([("Encoded and decoded", Picture(uri, alt))])


def _diffusion(run: Run) -> Chart | None:
    rows = run.read("evaluate/diffusion.json") or []
    lines = [
        Series(called, [(row["time"], row[key]) for row in rows if key in row], colour=colour)
        for colour, (key, called) in enumerate(DIFFUSION.items())
    ]
    if not any(line.points for line in lines):
        lines = [Series("all images", [(row["time"], row["loss"]) for row in rows])]
    return chart("Diffusion loss", "noise level, of the model's own path", lines)


def _clean_latent(run: Run) -> Chart | None:
    curve = curve_of(run, "image/x0_error", called="the model")
    mean = run.metrics.get("image/x0_error_of_mean")
    if curve is None:
        return None
    ends = [(x, mean) for x, _ in curve.points] if mean is not None else []
    lines = [curve, Series("the latents' mean", ends, colour=1, dashed=True)]
    return chart("Error of the clean latent", over("image/x0_error"), lines)


def _gap(run: Run) -> Chart | None:
    curve = curve_of(run, "conditioning/wrong_caption_x0_gap", called="another's caption less the own", colour=2)
    return chart("What a wrong caption costs", over("conditioning/x"), [curve]) if curve else None
