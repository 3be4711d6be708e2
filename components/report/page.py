"""The whole page: sections in order, drawn by the templates beside this file."""

from __future__ import annotations

from components.report.rendering import rendered
from components.report.run_files import Run
from components.report.sections.corpus import corpus
from components.report.sections.delivery import engines, version
from components.report.sections.evaluation import captions, composition, figures, guidance, not_measured, pictures
from components.report.sections.system import graph, system, tiles
from components.report.sections.training import noise_levels, training

SECTIONS = (
    *(graph, corpus, training, noise_levels, guidance, pictures, captions, composition, figures, engines, version),
    *(not_measured, system),
)


def page(run: Run) -> str:
    """One HTML file that needs nothing but itself; the same for the same files."""
    sections = [section for make in SECTIONS if (section := make(run)) is not None]
    title = run.training.get("name", "a run without a name")
    return rendered("page.html", title, sections, tiles=tiles(run))
