"""Runs suites over tables of facts, in memory, and describes each failed expectation in one line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import great_expectations as gx
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.data_context.abstract_data_context import AbstractDataContext
from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig

from caco_assets.validation.facts.table import Table

EXAMPLES = 5
"""Maximum offending rows named in a line."""
RESULT_FORMAT = {
    "result_format": "SUMMARY",
    "partial_unexpected_count": EXAMPLES,
    "unexpected_index_column_names": ["id"],
}


@dataclass(frozen=True)
class Outcome:
    """The results of one suite."""

    rows: list[dict[str, Any]]
    """One plain record per expectation, in the suite's order."""
    result: dict[str, Any]
    """Great Expectations' own validation result, JSON-able: what the data docs are built from."""


def in_memory(docs: str | None = None) -> AbstractDataContext:
    """A Great Expectations context that leaves nothing on disk, with one data docs site in the folder `docs` if given."""
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": docs},
    }
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        data_docs_sites={"docs": site} if docs else {},
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    return gx.get_context(project_config=config, mode="ephemeral")


def run(table: Table, suite: gx.ExpectationSuite, run_id: RunIdentifier) -> Outcome:
    """Check one table of facts.

    Raises:
        RuntimeError: an expectation could not be evaluated; an error in the suite or its facts, not in the data.
    """
    context = in_memory()
    asset = context.data_sources.add_pandas("facts").add_dataframe_asset(table.name)
    batches = asset.add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(suite)
    definition = gx.ValidationDefinition(name=table.name, data=batches, suite=suite)
    context.validation_definitions.add(definition)
    found = definition.run(batch_parameters={"dataframe": table.frame}, result_format=RESULT_FORMAT, run_id=run_id)
    result = json.loads(json.dumps(found.to_json_dict()))
    rows = [_row(table, one) for one in result["results"]]
    order = {expectation.meta["check"]: place for place, expectation in enumerate(suite.expectations) if expectation.meta}
    rows.sort(key=lambda row: order[row["check"]])
    return Outcome(rows, result)


def _row(table: Table, one: dict[str, Any]) -> dict[str, Any]:
    config, found = one["expectation_config"], one["result"]
    trouble = one["exception_info"]
    # one record, or one for each metric that raised
    raised = [part["exception_message"] for part in ([trouble] if "raised_exception" in trouble else trouble.values()) if part]
    if any(raised):
        raise RuntimeError(f"{table.name}.{config['meta']['check']}: could not be evaluated: {'; '.join(filter(None, raised))}")
    kwargs = config["kwargs"]
    columns = [kwargs["column"]] if "column" in kwargs else kwargs.get("column_list", [])
    examples = [_example(index, columns) for index in found.get("partial_unexpected_index_list") or []]
    observed = found.get("observed_value")
    row = {
        "table": table.name,
        "check": config["meta"]["check"],
        "severity": config["meta"]["severity"],
        "success": one["success"],
        "says": config["description"],
        "rows": len(table.frame),
        "unexpected": found.get("unexpected_count", 0 if one["success"] else 1),
        "observed": observed,
        "examples": examples,
    }
    return {**row, "line": "" if one["success"] else _line(row)}


def _example(index: dict[str, Any], columns: list[str]) -> str:
    shown = [index[name] for name in columns if name != "id" and str(index[name]) != str(index["id"])]
    return " = ".join([str(index["id"]), ", ".join(_value(value) for value in shown)]) if shown else str(index["id"])


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _line(row: dict[str, Any]) -> str:
    """`archive.chips.clear: at least 90% of the chip is clear; not so for 2 of 120: L0000001/p0s1 = 0.42, …`."""
    if row["observed"] is not None:
        return f"{row['table']}.{row['check']}: {row['says']}; observed: {row['observed']}"
    more = ", …" if row["unexpected"] > len(row["examples"]) else ""
    shown = "; ".join(row["examples"])
    return f"{row['table']}.{row['check']}: {row['says']}; not so for {row['unexpected']} of {row['rows']}: {shown}{more}"
