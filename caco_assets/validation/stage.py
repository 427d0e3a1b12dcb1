"""The stage `validation`: checks one product, saves the result, and builds the data docs of all results."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from caco_assets.validation.facts.table import Table

logger = logging.getLogger(__name__)

PRODUCTS = ("locations", "scenes", "archive", "pack", "scores")
"""The products that can be validated, in the order of the chain."""


@dataclass(frozen=True)
class ValidationResult:
    """The outcome of validating one product."""

    success: bool
    """Every expectation holds, those of severity `warning` too; work stops only for `blocking_failed`."""
    blocking_failed: list[str]
    """One line for each blocking expectation that failed: the expectation, the number of rows that break it, and which."""
    warnings: list[str]
    """The same for expectations that do not stop the chain."""
    evaluated: int
    """Number of expectations."""
    table: list[dict[str, Any]]
    """One record per expectation: `table`, `check`, `severity`, `success`, `says`, `rows`, `unexpected`, `observed`, `examples`,
    `line`."""
    docs: Path
    """The data docs' first page (see `build_docs`)."""


def validate(settings: Settings, product_name: str) -> ValidationResult:
    """Check one product and save the result below `settings.paths.data_docs / "results"`.

    Raises:
        UserError: no such product, or it has not been made or cannot be read.
    """
    if product_name not in PRODUCTS:
        raise UserError(f"product={product_name}: cannot be validated; choose one of {', '.join(PRODUCTS)}")
    tables = _facts(settings, product_name)

    from caco_assets.validation.suites import SUITES

    return keep(settings, product_name, tables, SUITES[product_name](settings))


def keep(settings: Settings, product_name: str, tables: list[Table], suites: list[Any]) -> ValidationResult:
    """Run suites over their tables of facts and save the results."""
    from great_expectations.core.run_identifier import RunIdentifier

    from caco_assets.validation.runner import run

    now = datetime.now(UTC).replace(microsecond=0)
    run_id = RunIdentifier(run_name=settings.vintage, run_time=now)
    outcomes = [run(table, suite, run_id) for table, suite in zip(tables, suites, strict=True)]
    rows = [row for outcome in outcomes for row in outcome.rows]
    lines = {
        kind: [row["line"] for row in rows if not row["success"] and row["severity"] == kind] for kind in ("blocking", "warning")
    }
    folder = settings.paths.data_docs
    summary = {
        "product": product_name,
        "success": not lines["blocking"] and not lines["warning"],
        "blocking_failed": lines["blocking"],
        "warnings": lines["warning"],
        "evaluated": len(rows),
        "table": rows,
        "validated_at": now.isoformat(),
    }
    write_atomic(folder / "results" / "gx" / f"{product_name}.json", json.dumps([outcome.result for outcome in outcomes], indent=1))
    write_atomic(folder / "results" / f"{product_name}.json", json.dumps(summary, indent=1) + "\n")
    for kind in ("blocking", "warning"):
        for line in lines[kind]:
            logger.warning(f"{kind}: {line}")
    held = len(rows) - len(lines["blocking"]) - len(lines["warning"])
    logger.info(f"validate {product_name}: {held} of {len(rows)} expectations hold")
    fields = ("success", "blocking_failed", "warnings", "evaluated", "table")
    return ValidationResult(**{name: summary[name] for name in fields}, docs=folder / "index.html")


def nothing_to_check(settings: Settings, product_name: str) -> ValidationResult:
    """The outcome when there is nothing to compare with yet; earlier results are removed."""
    folder = settings.paths.data_docs
    for file in (folder / "results" / f"{product_name}.json", folder / "results" / "gx" / f"{product_name}.json"):
        file.unlink(missing_ok=True)
    return ValidationResult(True, [], [], 0, [], folder / "index.html")


def build_docs(settings: Settings) -> Path:
    """Write the data docs of all products validated so far; returns their `index.html`.

    Raises:
        UserError: nothing has been validated yet.
    """
    from caco_assets.validation.data_docs import build_site, read_results

    folder = settings.paths.data_docs
    results, details = read_results(folder, (*PRODUCTS, "drift"))
    if not results:
        raise UserError(f"{folder}: nothing has been validated yet; run `caco validate` first")
    return build_site(folder, results, details)


def _facts(settings: Settings, product_name: str) -> list[Table]:
    from caco_assets.validation.facts.archive import archive
    from caco_assets.validation.facts.locations import locations
    from caco_assets.validation.facts.pack import pack
    from caco_assets.validation.facts.scenes import scenes
    from caco_assets.validation.facts.scores import scores

    readers = {"locations": locations, "scenes": scenes, "archive": archive, "pack": pack, "scores": scores}
    return readers[product_name](settings)
