"""Drift check: compares a vintage with the last accepted one by rules with thresholds, which a user can override."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts, Product, produce, recorded
from caco_assets.resources.vintages import finished
from caco_assets.settings import Settings
from caco_assets.validation.drift.statistics import folder_of, statistics
from caco_assets.validation.stage import ValidationResult, keep, nothing_to_check

logger = logging.getLogger(__name__)

NAME = "drift"
_RECIPE = "1"
BEYOND = 0.5
"""A chip's mean is an outlier if it is outside the range of the older vintage by more than half the width of that range."""
RULES = {
    "mean_change": "mean",
    "spread_change": "spread",
    "strange": "strange",
    "cover_change": "cover",
    "clear_sky_change": "clear_sky",
}
"""Column → field of `validation.drift` that bounds it."""


def check_drift(settings: Settings) -> tuple[Product, ValidationResult]:
    """Compare the vintage with the last accepted one before it, and write the outcome as the product `drift`.

    Returns:
        The product, whose facts are `vintage`, `reference` (None: nothing to compare with), `accepted`, `findings` (a line
        for each rule that does not hold), `accepted_by` and `reason` (of a user), `rules` (rows of a table: old, new, change,
        threshold); and the outcome of the expectations.

    Raises:
        UserError: there is no archive.
    """
    paths, vintage = settings.paths, settings.vintage
    now = _measure(settings)
    older = _reference(settings, now)
    figures = json.loads(now.path.read_text())
    bands, whole = compare(older, figures) if older else ([], [])
    result = _check(settings, bands, whole) if older else nothing_to_check(settings, NAME)
    findings = [*result.blocking_failed, *result.warnings]
    acceptance = _acceptance(settings, now)
    override = acceptance if acceptance and acceptance["by"] != "rules" else None
    accepted = not findings or override is not None

    def make(file: Path) -> Facts:
        facts = {
            "vintage": vintage,
            "reference": older and older["vintage"],
            "accepted": accepted,
            "findings": findings,
            "accepted_by": override and override["by"],
            "reason": override and override["reason"],
            "rules": _rows(settings, bands, whole),
        }
        file.write_text(json.dumps(facts, indent=1) + "\n")
        return facts

    limits = settings.validation.drift.model_dump(mode="json")
    inputs = {"now": now.content_hash, "older": older, "limits": limits, "word": override, "vintage": vintage}
    product = produce(NAME, paths.root / "data" / "drift.json", records=paths.records, recipe=_RECIPE, inputs=inputs, make=make)
    if not findings:
        _record_acceptance(settings, now, "rules", "every rule holds")
    elif not accepted:
        # the rules or the reference may have been different when they last accepted this vintage
        _acceptance_file(settings, vintage).unlink(missing_ok=True)
    return product, result


def accept(settings: Settings, user: str, reason: str) -> Product:
    """Accept the vintage although a rule fails; valid for exactly this data.

    Raises:
        UserError: no reason is given, or there is no archive.
    """
    if not reason.strip():
        raise UserError("--reason: say why this vintage is accepted; the reason is kept on record")
    _record_acceptance(settings, _measure(settings), user, reason)
    product, _ = check_drift(settings)
    logger.info(f"drift: vintage {settings.vintage} is accepted by {user}: {reason}; the sensor `drifted` or you launch its run")
    return product


def _measure(settings: Settings) -> Product:
    return statistics(settings, recorded(settings.paths.records, "quarantine"))


def compare(older: dict[str, Any], newer: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What has changed between the figures of two vintages: a row for each band, and one for ground and sky."""
    import numpy as np

    bands = []
    for band, was in older["bands"].items():
        now = newer["bands"][band]
        room = BEYOND * (was["high"] - was["low"])
        means = np.array(now["means"])
        strange = (means < was["low"] - room) | (means > was["high"] + room)
        bands.append(
            {
                "id": band,
                **{f"{name}_{age}": figures[name] for name in ("mean", "spread") for age, figures in (("old", was), ("new", now))},
                **{f"{name}_change": now[name] / max(was[name], 1e-9) - 1 for name in ("mean", "spread")},
                "strange": float(strange.mean()),
                "dead": now["dead"],
            }
        )
    kinds = {*older["cover"], *newer["cover"]}
    moved = sum(abs(newer["cover"].get(kind, 0) - older["cover"].get(kind, 0)) for kind in kinds) / 2
    sky = {"clear_sky_old": older["clear_sky"], "clear_sky_new": newer["clear_sky"]}
    change = newer["clear_sky"] - older["clear_sky"]
    return bands, [{"id": newer["vintage"], "cover_change": moved, **sky, "clear_sky_change": change}]


def _check(settings: Settings, bands: list[dict[str, Any]], whole: list[dict[str, Any]]) -> ValidationResult:
    import pandas as pd

    from caco_assets.validation.drift.suite import suites
    from caco_assets.validation.facts.table import Table

    tables = [Table("drift.bands", pd.DataFrame(bands)), Table("drift.ground", pd.DataFrame(whole))]
    return keep(settings, NAME, tables, suites(settings))


def _reference(settings: Settings, now: Product) -> dict[str, Any] | None:
    """The figures of the last accepted vintage before this one that were measured in the same bands.

    One that an encoder was trained on comes first: measured from month to month, a slow drift would never exceed a threshold.
    """
    files = sorted(folder_of(settings).glob("????-??.json"), reverse=True)
    known = [file for file in files if file.stem < settings.vintage and _acceptance_file(settings, file.stem).exists()]
    trained = finished(settings)
    for file in sorted(known, key=lambda file: file.stem not in trained):
        figures = json.loads(file.read_text())
        if list(figures["bands"]) == list(json.loads(now.path.read_text())["bands"]):
            return figures
    return None


def _rows(settings: Settings, bands: list[dict[str, Any]], whole: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Old, new, change and threshold of every rule, as a table for users."""
    limits, rows = settings.validation.drift, []
    for facts in (*bands, *whole):
        for column, field in RULES.items():
            if column in facts:
                name, limit, change = column.removesuffix("_change"), getattr(limits, field), facts[column]
                row = {"rule": field, "of": facts["id"], "old": facts.get(f"{name}_old"), "new": facts.get(f"{name}_new")}
                rows.append({**row, "change": round(change, 4), "threshold": limit, "holds": abs(change) <= limit})
    return rows


def _acceptance_file(settings: Settings, vintage: str) -> Path:
    return folder_of(settings) / f"{vintage}.accepted.json"


def _acceptance(settings: Settings, now: Product) -> dict[str, str] | None:
    """The user who accepted exactly this data, or None."""
    file = _acceptance_file(settings, settings.vintage)
    acceptance = json.loads(file.read_text()) if file.exists() else None
    if acceptance and acceptance["data"] == now.content_hash:
        return acceptance
    # it was given for other data of this vintage
    file.unlink(missing_ok=True)
    return None


def _record_acceptance(settings: Settings, now: Product, user: str, reason: str) -> None:
    if (known := _acceptance(settings, now)) and known["by"] == user and known["reason"] == reason:
        return
    at = datetime.now(UTC).isoformat(timespec="seconds")
    acceptance = {"by": user, "reason": reason, "at": at, "data": now.content_hash}
    write_atomic(_acceptance_file(settings, settings.vintage), json.dumps(acceptance, indent=1) + "\n")
