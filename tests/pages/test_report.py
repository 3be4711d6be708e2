"""The report of a whole run on pictures of one's own opens in a browser, with every section that applies to them."""

from __future__ import annotations

import re

from tests.browser import browser
from tests.pages.own_corpus import OwnCorpus

# The page's pictures are no digit scenes, and hold no text alone; few steps, so that whatever is shown is there at all.
SECTIONS = {
    "graph",
    "corpus",
    "training",
    "noise-levels",
    "pictures",
    "captions",
    "composition",
    "figures",
    "engines",
    "version",
}


def test_the_report_of_a_whole_run_opens(own_corpus: OwnCorpus) -> None:
    report = own_corpus.project / "reports/index.html"
    with browser() as page:
        page.open(report, width=360)
        found = page.value("[...document.querySelectorAll('section')].map(section => section.id)")
        assert set(found) >= SECTIONS | {"not-measured", "system"}
        assert page.value("document.documentElement.scrollWidth") <= 360
        assert page.requests == [] and page.said == []
        assert page.value("[...document.images].every(image => image.naturalWidth > 0 && image.alt)")
        said = page.value("document.body.textContent")
    assert re.search(r"number \d+ is a \w+ square on the \w+", said) and "transfusion version 1" in said
    assert "After the last step" not in said and "After 8 steps" in said
    stages = (
        "ingest",
        "validate-documents",
        "autoencoder",
        "encode",
        "validate-latents",
        "train",
        "evaluate",
        "export",
        "infer",
    )
    assert all((own_corpus.project / f"reports/ran/{name}.json").exists() for name in stages)
