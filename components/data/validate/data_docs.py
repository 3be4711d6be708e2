"""Data Docs that read without a network and show any value: Great Expectations' pages made safe, and an index of ours.

Its pages take styles, icons and scripts from nine public servers, and fill the index by script, so that offline most of it
would be blank. Here every script and every remote style goes, a small style of ours takes their place in each page, and
the index is plain HTML: every expectation with its severity, reason, observed value and first failing rows.
"""

from __future__ import annotations

import html
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.validate.results import ExpectationResult, ValidationResult
from core.text import counted

if TYPE_CHECKING:
    import pandas as pd

LOGO = Path("static/images/logo-long.png")
KEPT_STATIC = {LOGO.name, "favicon.ico"}
NUM_KEYS_SHOWN = 5

# What Bootstrap and Font Awesome would do for the classes that the pages use, as far as reading needs it.
STYLE = """
body { margin: 0; font: 15px/1.45 system-ui, sans-serif; color: #212529; }
/* Of one line's height by its own style, and with our breadcrumbs on two. */
.navbar { height: auto !important; padding: 0 1.2rem; }
main, .container-fluid { padding: 0 1.2rem; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; }
.row > [class*="col-lg-2"] { flex: 0 0 15rem; }
.row > [class*="col-lg-10"] { flex: 1 1 30rem; min-width: 0; }
.row > .col-12 { flex: 1 1 100%; min-width: 0; }
.sticky { top: 1rem; }
.sticky > .card.mb-3 { display: none; }
table { border-collapse: collapse; margin: .4rem 0 1.2rem; }
th, td { border: 1px solid #adb5bd; padding: .25rem .55rem; text-align: left; vertical-align: top; }
/* Long values may break anywhere, headings and words of a few letters never. */
td { overflow-wrap: anywhere; min-width: 4.5rem; }
td.holds, td.fails, td.warns { min-width: 0; }
td.word, th { white-space: nowrap; }
.alert { border: 1px solid #adb5bd; border-radius: .3rem; padding: .5rem .8rem; margin: .6rem 0; }
.badge { border: 1px solid; border-radius: .3rem; padding: 0 .35rem; }
.text-success, .holds { color: #1a7f37; }
.text-danger, .fails { color: #cf222e; }
.text-warning, .warns { color: #9a6700; }
.fa-check-circle::before { content: "\\2713"; }
.fa-times::before, .fa-times-circle::before { content: "\\2717"; }
.fa-exclamation-triangle::before, .fa-exclamation-circle::before { content: "!"; }
ol.breadcrumb, ul.nav { list-style: none; padding-left: 0; }
ol.breadcrumb > li { display: inline; }
ol.breadcrumb > li + li::before { content: " / "; }
@media (prefers-color-scheme: dark) {
  body { background: #16191d; color: #e6e6e6; }
  a { color: #7ab7ff; }
}
"""


def make_offline(docs: Path, validation: ValidationResult) -> None:
    """Strip every page of what it would fetch, drop files that none needs, and write `docs`/index.html."""
    for page in docs.rglob("*.html"):
        page.write_text(_stripped(page.read_text(), os.path.relpath(docs / LOGO, page.parent)))
    for file in (docs / "static").rglob("*"):
        if file.is_file() and file.name not in KEPT_STATIC:
            file.unlink()
    for folder in ("fonts", "styles"):
        shutil.rmtree(docs / "static" / folder, ignore_errors=True)
    (docs / "index.html").write_text(_index(docs, validation))


def as_html(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its texts escaped: Great Expectations puts a failing row's values into its pages as they are."""
    texts = table.select_dtypes(include=["object", "string"])
    return table.assign(**{str(name): texts[name].map(_of_strings(html.escape)) for name in texts})


def from_html(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `as_html`'s table as it was before."""
    return {name: _of_strings(html.unescape)(value) for name, value in row.items()}


def _of_strings(function: Callable[[str], str]) -> Callable[[Any], Any]:
    return lambda value: function(value) if isinstance(value, str) else value


def _stripped(page: str, logo: str) -> str:
    page = re.sub(r"(?is)<script\b.*?</script>", "", page)
    page = re.sub(r"(?is)<footer\b.*?</footer>", "", page)
    page = re.sub(r"(?i)<link\b[^>]*>", "", page)
    page = re.sub(r"https://great-expectations-web-assets[^\"')]*", logo, page)
    return page.replace("</head>", f"<style>{STYLE}</style>\n</head>", 1)


def _index(docs: Path, validation: ValidationResult) -> str:
    tables = list(dict.fromkeys(result.table for result in validation.results))
    outcome = ("holds", "Passed") if validation.passed else ("fails", "Refused")
    body = [
        f'<h1>{html.escape(docs.name)}: <span class="{outcome[0]}">{outcome[1]}</span></h1>',
        f"<p>{counted(len(validation.results), 'expectation')} over {counted(len(tables), 'table')};"
        f" {counted(len(validation.quarantined), 'row')} quarantined.</p>",
        *_sentences("Refusals", validation.refusals),
        *_sentences("Warnings", validation.warnings),
    ]
    for table in tables:
        results = [result for result in validation.results if result.table == table]
        body += [f"<h2>{html.escape(table)}</h2>", f"<p>{_links(docs, table)}</p>", _table(results)]
    title = f"<title>Data Docs: {html.escape(docs.name)}</title>"
    head = f'<meta charset="utf-8">{title}<link rel="icon" href="static/images/favicon.ico"><style>{STYLE}</style>'
    lines = "\n".join(body)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body><main>\n{lines}\n</main></body></html>\n'


def _sentences(title: str, sentences: Iterable[str]) -> list[str]:
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return [f"<h2>{title}</h2><ul>{items}</ul>"] if items else []


def _links(docs: Path, table: str) -> str:
    """Great Expectations' own pages of the table: results, with the values of failing rows, and the suite."""
    pages = [("results", page) for page in sorted(docs.glob(f"validations/{table}/**/*.html"))]
    pages.append(("suite", docs / "expectations" / f"{table}.html"))
    return " | ".join(
        f'<a href="{html.escape(str(page.relative_to(docs)))}">{name}</a>' for name, page in pages if page.is_file()
    )


def _table(results: Iterable[ExpectationResult]) -> str:
    names = ("", "severity", "expectation", "why", "observed", "failing rows")
    heads = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><tr>{heads}</tr>{''.join(map(_row, results))}</table>"


def _row(result: ExpectationResult) -> str:
    kind, sign = ("holds", "&#10003;") if result.success else ("fails", "&#10007;")
    if not result.success and result.severity != "critical":
        kind = "warns"
    arguments = ", ".join(f"{name} {value}" for name, value in result.arguments.items())
    keys = ", ".join(str(row["key"]) for row in result.rows[:NUM_KEYS_SHOWN] if "key" in row)
    failing = f"{result.num_failing}: {keys}" if keys else str(result.num_failing or "")
    severity = "row" if result.level == "row" else result.severity
    cells = [f"{result.expectation} ({arguments})", result.reason, result.error or result.observed, failing]
    head = f'<td class="{kind}">{sign}</td><td class="word">{html.escape(severity)}</td>'
    return f"<tr>{head}" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>"
