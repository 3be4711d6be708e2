"""The evaluation as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from components.evaluation.config import EvaluateConfig
from components.evaluation.diffusion import DiffusionLosses
from components.evaluation.metrics import table
from components.evaluation.pictures import curves
from components.evaluation.results import Captioned, Results
from components.runtime.tracking import flatten
from core.files import digest
from core.png import encode_png
from core.sheets import enlarged

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1120px; margin: 2rem auto;
       padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid #ddd; }
td.number { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
code { font-size: .9em; white-space: nowrap; }
img { max-width: 100%; } .pixels { image-rendering: pixelated; width: 96px; }
.wrong { color: #b22222; } .right { color: #1a7f37; }
details { margin: .3rem 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .85rem; }
"""


X_0_ERROR = """Models of any prediction type compare here: a noise level is the cosine schedule's time of the same
signal-to-noise ratio, whatever the model's own path. Where a model is worse than the mean of these latents, it had better
answer with that."""


# A file beside the page that says which run the page is of, and when. Both differ between runs that are otherwise equal, so
# the page itself, which DVC tracks, does not hold them; nor does it believe a file that is of another evaluation.
RUN_FACTS = "this_run.js"
RUN_SCRIPT = """<p id="run">Run and time stand beside it where <code>evaluate</code> wrote it, and in MLflow.</p>
<script>
function showRun(key, text) {
  const place = document.getElementById("run");
  if (key === place.dataset.evaluation) place.textContent = text;
}
</script>
<script src="this_run.js"></script>"""


def page_key(metrics: Mapping[str, float], settings: Mapping[str, Mapping[str, Any]], weights: str) -> str:
    """A digest of what was measured, how and on what: by it a page knows the file of its own run."""
    return digest([metrics, settings, weights])


def run_facts(key: str, run_id: str) -> str:
    """The content of RUN_FACTS, as of now. key: the page's. run_id: of the training."""
    text = f"Training run {run_id}, evaluated {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    return f"showRun({json.dumps(key)}, {json.dumps(text)});\n"


def settings_of(train: Mapping[str, Any], config: EvaluateConfig) -> dict[str, Mapping[str, Any]]:
    """What the page says it was made with. train: the weights' manifest; params.yaml may have other values by now."""
    return {f"Training: {train['step']} steps": train.get("settings", {}), "Evaluation": asdict(config)}


def lines(results: Results) -> list[str]:
    """For a console: every figure, and what was not measured."""
    figures = [f"{figure.key:40}  {figure.text(4)}" for figure in table(results.metrics)]
    return figures + [f"not measured: {note}" for note in results.notes]


def page(results: Results, samples_png: bytes, training: Path, settings: Mapping[str, Mapping[str, Any]], weights: str) -> str:
    """The whole page.

    samples_png: the sample grid. training: the weights' folder; its tables are pictured if it has any. settings: title ->
    nested values, of what made the page. weights: their digest.
    """
    parts = [
        "<h1>Evaluation</h1>",
        _made_with(settings, weights, page_key(results.metrics, settings, weights)),
        *(f"<p>Not measured: {escape(note)}.</p>" for note in results.notes),
    ]
    parts += ["<h2>Figures</h2>", _metrics(results)]
    if results.generated:
        how = "The first ones, not the best ones; under each its prompt and, where a classifier reads them, what it saw."
        parts += ["<h2>Pictures generated from prompts</h2>", f"<p>{how}</p>", _image(samples_png, "sample grid")]
    if results.captions:
        parts += [
            "<h2>Captions of held-out pictures</h2>",
            '<div class="figures">',
            *map(_caption, results.captions),
            "</div>",
        ]
    if results.diffusion is not None:
        parts += ["<h2>Held-out diffusion loss by noise level</h2>", _losses(diffusion_rows(results.diffusion))]
    if results.x_0 is not None:
        of_mean = {"mean": results.metrics["image/x0_error_of_mean"]}
        rows = [row | of_mean for row in diffusion_rows(results.x_0)]
        parts += ["<h2>Error of the implied clean latent by noise level</h2>", f"<p>{X_0_ERROR}</p>", _losses(rows)]
    if (png := curves(training)) is not None:
        parts += ["<h2>Training</h2>", _image(png, "losses over training steps")]
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head = f"{meta}<title>Evaluation</title><style>{STYLE}</style>"
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _made_with(settings: Mapping[str, Mapping[str, Any]], weights: str, key: str) -> str:
    """What the figures hold for."""
    lines = [f"<p>Of the weights <code>{escape(weights[:12])}</code>.</p>"]
    lines.append(RUN_SCRIPT.replace('id="run"', f'id="run" data-evaluation="{key}"'))
    for title, values in settings.items():
        shown = {name: json.dumps(value) for name, value in flatten(values).items()}
        rows = [f"<tr><td><code>{escape(name)}</code></td><td>{escape(value)}</td></tr>" for name, value in shown.items()]
        lines.append(f"<details><summary>{escape(title)}</summary><table>{''.join(rows)}</table></details>")
    return "\n".join(lines)


def diffusion_rows(losses: DiffusionLosses | None) -> list[dict[str, float]]:
    """One row a noise level, for a DVC plot: time, loss and, where measured, right_caption and wrong_caption."""
    if losses is None:
        return []
    rows: list[dict[str, float]] = [{"time": time, "loss": loss} for time, loss in zip(losses.times, losses.all, strict=True)]
    if losses.right is not None and losses.wrong is not None:
        for row, right, wrong in zip(rows, losses.right, losses.wrong, strict=True):
            row |= {"right_caption": right, "wrong_caption": wrong}
    return rows


def _metrics(results: Results) -> str:
    rows = [
        f'<tr><td><code>{escape(figure.key)}</code></td><td class="number">{figure.text(4)}</td>'
        f"<td>{escape(figure.metric.meaning)} ({figure.metric.better} is better)</td></tr>"
        for figure in table(results.metrics)
    ]
    return "\n".join(["<table>", "<tr><th>figure</th><th>value +- standard error</th><th>meaning</th></tr>", *rows, "</table>"])


def _losses(rows: list[dict[str, float]]) -> str:
    names = {
        "time": "noise level",
        "loss": "all images",
        "right_caption": "right caption",
        "wrong_caption": "wrong caption",
        "mean": "the latents' mean as the answer",
    }
    heading = "".join(f"<th>{names[key]}</th>" for key in rows[0])
    lines = ["<tr>" + "".join(f'<td class="number">{value:.4f}</td>' for value in row.values()) + "</tr>" for row in rows]
    return "\n".join(["<table>", f"<tr>{heading}</tr>", *lines, "</table>"])


def _caption(entry: Captioned) -> str:
    outcome = {True: "right", False: "wrong", None: ""}[entry.right]
    captions = " / ".join(entry.references)
    picture = _image(encode_png(enlarged(entry.image, 96), smallest=True), captions, "pixels")
    generated = f'<span class="{outcome}">{escape(entry.generated) or "(nothing)"}</span>'
    truth = "" if entry.right else f"<br>in the corpus: {escape(captions)}"
    return f"<figure>{picture}<figcaption>{generated}{truth}</figcaption></figure>"


def _image(png: bytes, alt: str, kind: str = "") -> str:
    data = base64.b64encode(png).decode()
    return f'<img class="{kind}" alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}">'
