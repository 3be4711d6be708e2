"""Gates that decide about a table: Great Expectations, a quarantine for rows, an equal verdict for equal tables.

A row that breaks a row expectation is quarantined with the reason, and the gate passes while the share of such rows is
small. An expectation about a whole table refuses at once where its severity is critical, and is only told where it is a
warning. What could not be evaluated counts as failed, for rows too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from components.data.quarantine import Quarantined
from components.data.validate.data_docs import as_html, from_html, make_offline
from components.data.validate.verdict import NUM_ROWS_SHOWN, Finding, Verdict
from core.files import fresh_folder

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.data_context import EphemeralDataContext

# The column that names a row, in every table that is checked.
KEY = "key"
SITE = "data_docs"


class Rule(NamedTuple):
    """One expectation. kind: a class of great_expectations.expectations. reason: why it must hold.

    level "row": a failing row is quarantined, and does not stop by itself. "table": a failure refuses where the severity
    (Great Expectations' own) is critical, and is told where it is warning.
    """

    level: Literal["row", "table"]
    severity: Literal["critical", "warning"]
    kind: str
    arguments: dict[str, Any]
    reason: str


class Check(NamedTuple):
    """Rules over one table. name: of the table, in the report and in Data Docs."""

    name: str
    table: pd.DataFrame
    rules: Sequence[Rule]


class Floor(NamedTuple):
    """Rules over a part of the checked table, once bad rows are out. selection: column -> the value its rows have."""

    name: str
    selection: Mapping[str, Any]
    rules: Sequence[Rule]


def row_rule(kind: str, reason: str, **arguments: Any) -> Rule:
    """A rule whose failing rows are quarantined."""
    return Rule("row", "warning", kind, arguments, reason)


def table_rule(kind: str, reason: str, **arguments: Any) -> Rule:
    """A rule whose failure refuses the table."""
    return Rule("table", "critical", kind, arguments, reason)


def warning_rule(kind: str, reason: str, **arguments: Any) -> Rule:
    """A rule about the table whose failure is told and does not refuse."""
    return Rule("table", "warning", kind, arguments, reason)


def judge(
    rows: Check,
    floors: Iterable[Floor],
    others: Iterable[Check] = (),
    *,
    max_quarantined_share: float,
    docs: Path | None,
) -> Verdict:
    """Check the rows, set aside the bad ones, check the floors on what is left, and then the other tables.

    docs: folder that Data Docs are written to, anew, None for none; index.html is the page to open.
    """
    context = _context()
    findings, broken = _run(context, rows)
    quarantined, kept = _set_aside(rows.table, broken)
    parts = [Check(floor.name, _part(kept, floor.selection), floor.rules) for floor in floors]
    for check in (*parts, *others):
        findings += _run(context, check)[0]
    share = len(quarantined) / max(1, len(rows.table))
    refusals = [_sentence(finding) for finding in findings if _refuses(finding)]
    warnings = [_sentence(finding) for finding in findings if _warns(finding)]
    if share > max_quarantined_share:
        first = ", ".join(f"{entry.key} ({entry.reason})" for entry in quarantined[:3])
        refusals.append(
            f"{len(quarantined)} of {len(rows.table)} rows of {rows.name} break row expectations, a share of"
            f" {share:.4f} over the {max_quarantined_share} of max_quarantined_share: {first}"
        )
    verdict = Verdict(findings, quarantined, share, refusals, warnings)
    if docs:
        _write_docs(context, docs)
        make_offline(docs, verdict)
    return verdict


def _set_aside(table: pd.DataFrame, broken: Mapping[Any, list[str]]) -> tuple[list[Quarantined], pd.DataFrame]:
    """The rows to set aside in the table's order, each once, and the table without them."""
    if not broken:
        return [], table
    is_broken = table[KEY].isin(list(broken))
    # A null key has several spellings; its table is refused.
    keys = dict.fromkeys(key for key in table.loc[is_broken, KEY] if key in broken)
    return [Quarantined(str(key), "; ".join(broken[key])) for key in keys], table.loc[~is_broken]


def _part(table: pd.DataFrame, selection: Mapping[str, Any]) -> pd.DataFrame:
    for column, value in selection.items():
        table = table.loc[table[column] == value] if column in table else table.iloc[:0]
    return table


def _refuses(finding: Finding) -> bool:
    if finding.level == "row":
        return bool(finding.error)
    return finding.severity == "critical" and not finding.success


def _warns(finding: Finding) -> bool:
    return finding.level == "table" and finding.severity != "critical" and not finding.success


def _context() -> EphemeralDataContext:
    """A context in memory, without bars of progress and without the site it would build in a temporary folder."""
    # Read on import; the switch for a client that this version no longer has, kept off should it return.
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for site in list(context.get_site_names()):
        context.delete_data_docs_site(site)
    return context


def _run(context: EphemeralDataContext, check: Check) -> tuple[list[Finding], dict[Any, list[str]]]:
    """What came of each rule, in order, and the keys that break row rules with their reasons."""
    import great_expectations as gx

    expectations = [_expectation(rule, position) for position, rule in enumerate(check.rules)]
    suite = context.suites.add(gx.ExpectationSuite(name=check.name, expectations=expectations))
    asset = context.data_sources.add_pandas(check.name).add_dataframe_asset(check.name)
    data = asset.add_batch_definition_whole_dataframe("all")
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=check.name, data=data, suite=suite))
    checkpoint = gx.Checkpoint(
        name=check.name,
        validation_definitions=[definition],
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": [KEY] if KEY in check.table else [],
        },
    )
    result = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": as_html(check.table)})
    (run,) = result.run_results.values()
    # The results come in an order of their own.
    answers: list[dict[str, Any]] = [dict(item.to_json_dict()) for item in run.results]
    results = {answer["expectation_config"]["meta"]["position"]: answer for answer in answers}
    findings, broken = [], {}
    for position, rule in enumerate(check.rules):
        finding, failing = _finding(check.name, rule, results[position])
        findings.append(finding)
        if rule.level == "row":
            for row in failing:
                value = "; ".join(f"{name} = {row[name]}" for name in row if name != KEY)
                broken.setdefault(row[KEY], []).append(f"{value}: {rule.reason}")
    return findings, broken


def _expectation(rule: Rule, position: int) -> Any:
    import great_expectations as gx

    meta = {"position": position, "level": rule.level, "reason": rule.reason}
    return getattr(gx.expectations, rule.kind)(**rule.arguments, severity=rule.severity, meta=meta, notes=rule.reason)


def _finding(table: str, rule: Rule, result: dict[str, Any]) -> tuple[Finding, list[dict[str, Any]]]:
    """The finding, and all failing rows."""
    details = result["result"]
    # Without a column of keys they are bare numbers.
    failing = [from_html(row) for row in details.get("unexpected_index_list") or [] if isinstance(row, Mapping)]
    finding = Finding(
        table=table,
        level=rule.level,
        severity=str(result["expectation_config"]["severity"]),
        expectation=re.sub(r"(?<!^)([A-Z])", r"_\1", rule.kind).lower(),
        arguments=rule.arguments,
        reason=rule.reason,
        success=bool(result["success"]),
        observed=details.get("observed_value", details.get("element_count")),
        num_failing=int(details.get("unexpected_count", 0)),
        rows=failing[:NUM_ROWS_SHOWN],
        error=_error(result.get("exception_info") or {}),
    )
    return finding, failing


def _error(exception_info: Mapping[str, Any]) -> str:
    """The message of the first exception; Great Expectations nests them by metric where there were several."""
    for entry in [exception_info, *exception_info.values()]:
        if isinstance(entry, Mapping) and entry.get("raised_exception"):
            return str(entry.get("exception_message"))
    return ""


def _sentence(finding: Finding) -> str:
    shown = ", ".join(f"{name} {value}" for name, value in finding.arguments.items())
    what = f"{finding.table}: {finding.expectation} ({shown}) "
    if finding.error:
        return what + f"could not be evaluated: {finding.error}"
    keys = ", ".join(str(row[KEY]) for row in finding.rows[:5])
    seen = f"failed on {finding.num_failing} rows ({keys})" if keys else f"failed, observed {finding.observed}"
    return f"{what}{seen}: {finding.reason}"


def _write_docs(context: EphemeralDataContext, docs: Path) -> None:
    """All pages at once: the action of a checkpoint would write the index and load every template for each table."""
    # What follows a dollar sign is a variable to Great Expectations, unless it is escaped.
    folder = str(fresh_folder(docs).absolute()).replace("$", r"\$")
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": folder}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    site = {
        "class_name": "SiteBuilder",
        "store_backend": store,
        "site_index_builder": index,
        "show_how_to_buttons": False,
    }
    context.add_data_docs_site(SITE, site)  # type: ignore[arg-type]
    context.build_data_docs(site_names=[SITE])
