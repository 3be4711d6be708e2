"""The page of a run, opened in a real browser: it asks nobody, fits a phone, is read light, dark and by keyboard.

The run is the one that reports/ was committed with; what is shown of its pictures and captions is made here, and hostile.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from components.report.page import page
from components.report.run_files import Example, Run
from components.runtime.stage_facts import note_stage
from core.data_uri import picture_uri
from core.files import write_json
from pipelines.params import load
from tests.browser import Page, browser

ROOT = Path(__file__).parents[3]
HOSTILE = '</p><script>window.hacked = 1</script><img src="https://example.org/x" onerror="window.hacked = 1">'
LONG = "w" * 300
SECTIONS = ["graph", "corpus", "training", "noise-levels", "guidance", "pictures", "captions", "composition", "figures"]
SECTIONS += ["engines", "version", "not-measured", "system"]
# Of every element with text of its own: the contrast of its colour with that of the nearest ground behind it.
CONTRASTS = """
(() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => channels(colour).slice(0, 3)
    .map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const [, , , alpha = 1] = channels(getComputedStyle(at).backgroundColor);
      if (alpha > 0) return getComputedStyle(at).backgroundColor;
    }
  };
  return [...document.querySelectorAll("body *")]
    .filter(element => [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
    .map(element => {
      const style = getComputedStyle(element), ink = element.closest("svg") ? style.fill : style.color;
      const [one, other] = [light(ink), light(ground(element))].sort((a, b) => b - a);
      return [(one + .05) / (other + .05), element.className.baseVal ?? element.className, element.textContent.slice(0, 40)];
    }).sort((a, b) => a[0] - b[0])[0];
})()
"""


def picture(number: int) -> str:
    return picture_uri(np.full((32, 32, 3), number, np.uint8))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The committed run's figures, with texts as nobody wants them."""
    reports = tmp_path_factory.mktemp("run") / "reports"
    shutil.copytree(ROOT / "reports", reports, ignore=shutil.ignore_patterns("data_docs", "index.html"))
    shown = {
        "notes": [f"nothing of {HOSTILE}"],
        "generated": [
            {"group": HOSTILE, "image": picture(9), "prompt": HOSTILE, "read": LONG, "right": right}
            for right in (True, False, None)
        ],
        "captions": [
            {"image": picture(8), "references": [HOSTILE, LONG], "generated": HOSTILE, "sampled": "", "right": False},
        ],
        "nearest_training": [{"generated": picture(7), "training": picture(6), "similarity": 0.98765, "flagged": True}],
    }
    write_json(reports / "evaluate/shown.json", shown)
    counts = json.loads((reports / "ingest/counts.json").read_text())
    counts["corpora"]["scenes"] |= {"reasons": {HOSTILE: 3}, "passed_over": {"links": {"number": 2, "first": [LONG]}}}
    write_json(reports / "ingest/counts.json", counts)
    held_out = [
        "step,loss,image,caption_gap,x0_error_0.1,x0_error_0.9",
        "750,5.8,0.33,0.5,0.01,0.5",
        "1500,5.4,0.3,0.7,0.008,0.4",
    ]
    (reports / "train/validation.csv").write_text("\n".join(held_out) + "\n")
    note_stage(reports / "ran/train.json", 561.0, {"commit": "0" * 40, "differs": False})
    note_stage(reports / "ran/validate-latents.json", 6.0, {})
    return Run(
        reports=reports,
        pipeline=YAML(typ="safe").load((ROOT / "dvc.yaml").read_text()),
        settings=asdict(load(ROOT / "params.yaml")),
        training={"run_id": "0" * 32, "name": HOSTILE},
        examples={"scenes": [Example([HOSTILE], [picture(5)]), Example([], [picture(4)] * 3)], "prose": [Example([LONG], [])]},
    )


@pytest.fixture(scope="module")
def opened(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page, in a wide window."""
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page(run))
    with browser() as window:
        window.open(path)
        yield window


def test_every_section_is_there_and_none_asks_or_runs_anything(opened: Page) -> None:
    assert opened.value("[...document.querySelectorAll('section')].map(section => section.id)") == SECTIONS
    assert opened.value("[...document.querySelectorAll('nav a')].map(link => link.hash.slice(1))") == SECTIONS
    assert opened.requests == [] and opened.said == []
    assert opened.value("typeof window.hacked") == "undefined"
    assert opened.value("document.scripts.length + document.querySelectorAll('[onerror], link[href^=http]').length") == 0


def test_hostile_texts_are_text(opened: Page) -> None:
    said = opened.value("document.body.textContent")
    # A title, a note, a reason, a group, three prompts, an example, two captions.
    assert said.count("window.hacked = 1</script>") >= 10
    assert HOSTILE in opened.value("document.title")


def test_whatever_asks_or_runs_is_refused_by_the_page_itself(opened: Page) -> None:
    for made in (
        "new Image().src = 'https://example.org/y'",
        "document.head.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))",
    ):
        opened.value(f"{{ {made}; 0 }}")
    assert opened.value("typeof window.ran") == "undefined"
    assert any("Content Security Policy" in line for line in opened.said)
    opened.requests.clear()
    opened.said.clear()


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_it_fits_the_window(opened: Page, width: int) -> None:
    opened.look(width=width)
    opened.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert opened.value("document.documentElement.scrollWidth") <= width
    parts = "[...document.querySelectorAll('img, p, h1, h2, h3, figcaption, svg')]"
    wider = f"{parts}.filter(each => each.getBoundingClientRect().right > innerWidth)"
    assert opened.value(f"{wider}.map(each => each.outerHTML.slice(0, 80))") == []


def test_light_and_dark_are_read_well(opened: Page) -> None:
    grounds = []
    for dark in (False, True):
        opened.look(width=1200, dark=dark)
        grounds.append(opened.value("getComputedStyle(document.body).backgroundColor"))
        worst = opened.value(CONTRASTS)
        assert worst[0] >= 4.5, worst
    assert grounds[0] != grounds[1]


def test_it_is_read_by_headings_and_keys(opened: Page) -> None:
    levels = opened.value("[...document.querySelectorAll('h1, h2, h3, h4')].map(each => Number(each.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert opened.value("[...document.images].filter(each => !each.alt.trim()).length") == 0
    assert opened.value("[...document.querySelectorAll('svg[role=img]')].filter(each => !each.ariaLabel).length") == 0
    opened.value("document.querySelectorAll('details').forEach(each => each.open = false)")
    opened.value("{ document.activeElement.blur(); scrollTo(0, 0) }")
    opened.press("Tab")
    assert opened.value("document.activeElement.className") == "skip"
    assert opened.value("document.activeElement.getBoundingClientRect().top") >= 0
    opened.press("Enter")
    assert opened.value("document.activeElement.id") == "content"
    opened.value("document.querySelector('summary').focus()")
    assert opened.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    opened.press("Enter")
    assert opened.value("document.querySelector('details').open")


def test_the_same_files_give_the_same_page_which_is_small(run: Run) -> None:
    html = page(run)
    assert html == page(replace(run))
    assert len(html) < 2 * 2**20


def test_figures_have_names_intervals_and_meanings(run: Run) -> None:
    html = page(run)
    values, intervals = run.metrics, run.intervals
    (key, value), interval = ("text/bits_per_byte", values["text/bits_per_byte"]), intervals["text/bits_per_byte"]
    assert f">{value:.3f}<" in html and f"{interval['low']:.3f} to {interval['high']:.3f}" in html
    assert f"<code>{key}</code> bits the model needs for a byte of held-out prose" in html
    assert "Error of the clean latent, held out: noise 0.1 from 0.010 to 0.008; noise 0.9 from 0.500 to 0.400" in html
    assert "What a wrong caption costs: held out from 0.500 to 0.700" in html
    assert "used: 4" in html and "9m21s" in html and "6s</text>" in html


def test_what_did_not_run_is_left_out(run: Run, tmp_path: Path) -> None:
    empty: dict[str, Any] = {"reports": tmp_path / "reports", "training": {"run_id": "a"}, "examples": {}}
    html = page(replace(run, **empty))
    assert [name for name in SECTIONS if f'<section id="{name}"' in html] == ["graph", "system"]
    assert "Their times are not known." in html and "a run without a name" in html
    shutil.copytree(run.reports / "export", tmp_path / "reports/export")
    html = page(replace(run, **empty))
    assert '<section id="engines"' in html and "not built: the tensorrt package does not import here" in html
