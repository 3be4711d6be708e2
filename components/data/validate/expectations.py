"""Gates that decide about a table: Great Expectations, a quarantine for rows, an equal result for equal tables.

A row that breaks a row expectation is quarantined with the reason, and the gate passes while the share of such rows is
small. An expectation about a whole table refuses at once where its severity is critical, and is only told where it is a
warning. What could not be evaluated counts as failed, for rows too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.data.quarantine import Quarantined
from components.data.validate.data_docs import as_html, from_html, make_offline
from components.data.validate.results import NUM_ROWS_SHOWN, ExpectationResult, ValidationResult
from components.data.validate.rules import KEY, Check, Minimum, Rule
from components.data.validate.sentences import Break, row_reason, sentence, share_sentence
from core.files import fresh_folder

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.data_context import EphemeralDataContext

SITE = "data_docs"


def validate_table(
    rows: Check,
    minimums: Iterable[Minimum],
    others: Iterable[Check] = (),
    *,
    max_quarantined_share: float,
    docs: Path | None,
) -> ValidationResult:
    """Check the rows, quarantine the bad ones, check the minimums on what is left, and then the other tables.

    docs: folder that Data Docs are written to, anew, None for none; index.html is the page to open.
    """
    context = _context()
    of_rows, broken = _run(context, rows)
    told = [_Told(rule, result, len(rows.table)) for rule, result in zip(rows.rules, of_rows, strict=True)]
    quarantined, kept = _quarantine(rows.table, broken)
    for minimum in minimums:
        part, whole = _part(kept, minimum.selection), _part(rows.table, minimum.selection)
        taken = [each for key in whole[KEY] if key in broken for each in broken[key]] if KEY in whole else []
        told += _told(context, Check(minimum.name, part, minimum.rules), taken)
    for check in others:
        told += _told(context, check)
    share = len(quarantined) / max(1, len(rows.table))
    refusals = [each.sentence() for each in told if _refuses(each.result)]
    warnings = [each.sentence() for each in told if _warns(each.result)]
    if share > max_quarantined_share:
        bound = f"validate.{rows.name}.max_quarantined_share {max_quarantined_share}"
        by_name = {str(key): breaks for key, breaks in broken.items()}
        breaks = [each for entry in quarantined for each in by_name[entry.key]]
        refusals.append(
            share_sentence(rows.name, breaks, num_quarantined=len(quarantined), num_rows=len(rows.table), bound=bound)
        )
    result = ValidationResult([each.result for each in told], quarantined, share, refusals, warnings)
    if docs:
        _write_docs(context, docs)
        make_offline(docs, result)
    return result


class _Told(NamedTuple):
    """A rule, what came of it, and what its sentence needs beside."""

    rule: Rule
    result: ExpectationResult
    num_rows: int
    set_aside: Sequence[Break] = ()

    def sentence(self) -> str:
        return sentence(self.rule, self.result, num_rows=self.num_rows, set_aside=self.set_aside)


def _told(context: EphemeralDataContext, check: Check, set_aside: Sequence[Break] = ()) -> list[_Told]:
    results = _run(context, check)[0]
    return [_Told(rule, result, len(check.table), set_aside) for rule, result in zip(check.rules, results, strict=True)]


def _quarantine(table: pd.DataFrame, broken: Mapping[Any, list[Break]]) -> tuple[list[Quarantined], pd.DataFrame]:
    """The rows to quarantine in the table's order, each once, and the table without them."""
    if not broken:
        return [], table
    is_broken = table[KEY].isin(list(broken))
    # A null key has several spellings; its table is refused.
    keys = dict.fromkeys(key for key in table.loc[is_broken, KEY] if key in broken)
    return [Quarantined(str(key), "; ".join(map(row_reason, broken[key]))) for key in keys], table.loc[~is_broken]


def _part(table: pd.DataFrame, selection: Mapping[str, Any]) -> pd.DataFrame:
    for column, value in selection.items():
        table = table.loc[table[column] == value] if column in table else table.iloc[:0]
    return table


def _refuses(result: ExpectationResult) -> bool:
    if result.level == "row":
        return bool(result.error)
    return result.severity == "critical" and not result.success


def _warns(result: ExpectationResult) -> bool:
    return result.level == "table" and result.severity != "critical" and not result.success


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


def _run(context: EphemeralDataContext, check: Check) -> tuple[list[ExpectationResult], dict[Any, list[Break]]]:
    """What came of each rule, in order, and the keys that break row rules with what each broke."""
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
    answer = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": as_html(check.table)})
    (run,) = answer.run_results.values()
    # The results come in an order of their own.
    answers: list[dict[str, Any]] = [dict(item.to_json_dict()) for item in run.results]
    by_position = {answer["expectation_config"]["meta"]["position"]: answer for answer in answers}
    results, broken = [], dict[Any, list[Break]]()
    for position, rule in enumerate(check.rules):
        result, failing = _expectation_result(check.name, rule, by_position[position])
        results.append(result)
        if rule.level == "row":
            for row in failing:
                broken.setdefault(row[KEY], []).append(Break(rule, row))
    return results, broken


def _expectation(rule: Rule, position: int) -> Any:
    import great_expectations as gx

    meta = {"position": position, "level": rule.level, "reason": rule.reason}
    return getattr(gx.expectations, rule.kind)(**rule.arguments, severity=rule.severity, meta=meta, notes=rule.reason)


def _expectation_result(table: str, rule: Rule, answer: dict[str, Any]) -> tuple[ExpectationResult, list[dict[str, Any]]]:
    """The result, and all failing rows."""
    details = answer["result"]
    # Without a column of keys they are bare numbers.
    failing = [from_html(row) for row in details.get("unexpected_index_list") or [] if isinstance(row, Mapping)]
    result = ExpectationResult(
        table=table,
        level=rule.level,
        severity=str(answer["expectation_config"]["severity"]),
        expectation=re.sub(r"(?<!^)([A-Z])", r"_\1", rule.kind).lower(),
        arguments=rule.arguments,
        reason=rule.reason,
        success=bool(answer["success"]),
        observed=details.get("observed_value", details.get("element_count")),
        num_failing=int(details.get("unexpected_count", 0)),
        rows=failing[:NUM_ROWS_SHOWN],
        error=_error(answer.get("exception_info") or {}),
    )
    return result, failing


def _error(exception_info: Mapping[str, Any]) -> str:
    """The message of the first exception; Great Expectations nests them by metric where there were several."""
    for entry in [exception_info, *exception_info.values()]:
        if isinstance(entry, Mapping) and entry.get("raised_exception"):
            return str(entry.get("exception_message"))
    return ""


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
