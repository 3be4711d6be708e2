"""Templates beside this file -> a page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.report.blocks import Section

TEMPLATES = Path(__file__).parent / "templates"
# A browser that holds to it loads nothing, runs nothing and sends nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def rendered(template: str, title: str, sections: Sequence[Section], **more: Any) -> str:
    """One HTML file. more: what that template asks for beside title and sections."""
    # Whatever a caption or a name holds is text.
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return templates.get_template(template).render(title=title, sections=sections, policy=POLICY, **more)
