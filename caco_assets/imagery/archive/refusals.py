"""Why chips are not in an archive: refusals counted by reason, and the main one in words with a way out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from caco_assets.core.parquet import read_parquet
from caco_assets.imagery.archive.shard import QUARANTINE, QUARANTINE_SCHEMA

LASTING = ("cloudy", "nodata")
"""Refusals caused by the pixels; a file that could not be read may be readable tomorrow."""
_CONSEQUENCE, _SPARE = "too_few_seasons", "surplus"
_REPAIR = "repair the files, or fetch them again, then run `caco ingest` again: it reads what has changed"
_ADVICE = {
    "unreadable": _REPAIR,
    "error_page": _REPAIR,
    "cloudy": "raise imagery.candidates, or lower imagery.min_clear",
    "nodata": "check what means no data in the files (nodata), and whether the scenes cover the places",
    "no_scene": "change vintage, gap_years, imagery.period_months or sampling.region",
    "outside_footprint": "the files are smaller than the catalog says: lower imagery.chip_size, or repair the catalog",
    "forbidden": "check the provider's keys and terms, then run `caco ingest --retry`",
    "server_error": "run `caco ingest --retry` when the provider serves these files again",
    "timeout": "run `caco ingest --retry` when the provider serves these files again",
    _CONSEQUENCE: "lower imagery.min_seasons, raise imagery.candidates, or split the dates otherwise (imagery.source.periods)",
}
REFUSAL_ADVICE = "run `caco archive verify --repair`, then `caco ingest`"


def read_refusals(file: Path) -> list[dict[str, Any]]:
    """The rows of a `quarantine.parquet`, or of a shard's folder that holds one.

    Raises:
        UserError: it cannot be read.
    """
    file = file / QUARANTINE if file.is_dir() else file
    return read_parquet(file, schema=QUARANTINE_SCHEMA, advice=REFUSAL_ADVICE).to_pylist()


def by_reason(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Reason → number of refusals, the most frequent first."""
    return dict(Counter(row["reason"] for row in rows).most_common())


def in_words(reasons: Mapping[str, int]) -> str:
    """`8 unreadable, 2 cloudy`."""
    return ", ".join(f"{number} {reason}" for reason, number in reasons.items())


def main_reason(rows: list[dict[str, Any]]) -> str | None:
    """The most frequent refusal of a chip, with an example and what to do; None without refusals.

    That a place has too few dates follows from the refusals of its chips, and is named only where there are none.
    """
    used = [row for row in rows if row["reason"] != _SPARE]
    causes = [row for row in used if row["reason"] != _CONSEQUENCE] or used or rows
    if not causes:
        return None
    reasons = by_reason(causes)
    reason = next(iter(reasons))
    example = next(row for row in causes if row["reason"] == reason)
    where = f"{example['item_id']}: " if example["item_id"] else ""
    advice = _ADVICE.get(reason, "see `caco archive ls --refused`")
    return f"{in_words(reasons)}; the first {reason} is {where}{example['detail']}; {advice}"
