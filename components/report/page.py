"""The whole page: sections in order, drawn by the templates beside this file."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.report.run_files import Run
from components.report.sections.corpus import corpus
from components.report.sections.delivery import engines, version
from components.report.sections.evaluation import captions, composition, figures, guidance, not_measured, pictures
from components.report.sections.system import graph, system, tiles
from components.report.sections.training import noise_levels, training

TEMPLATES = Path(__file__).parent / "templates"
SECTIONS = (
    *(graph, corpus, training, noise_levels, guidance, pictures, captions, composition, figures, engines, version),
    *(not_measured, system),
)
# A browser that holds to it loads nothing, runs nothing and sends nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def page(run: Run) -> str:
    """One HTML file that needs nothing but itself; the same for the same files."""
    # Whatever a caption or a name holds is text.
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sections = [section for make in SECTIONS if (section := make(run)) is not None]
    title = run.training.get("name", "a run without a name")
    return templates.get_template("page.html").render(title=title, tiles=tiles(run), sections=sections, policy=POLICY)
