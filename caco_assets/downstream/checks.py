"""Asset checks of scores, with their severity and what was compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from caco_assets.resources.dagster.metadata import table
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from caco_assets.downstream.score_rows import ScoreRow
    from caco_assets.downstream.scoring.image_locations import ImageLocations

POSSIBLE, NOT_FAR_BELOW, ELSEWHERE = "numbers_are_possible", "not_far_below_random", "test_images_lie_elsewhere"
CHECKS = {
    POSSIBLE: "No figure is outside [0, 1], not a number, or outside its own interval.",
    NOT_FAR_BELOW: "No encoder is far below random weights of its own backbone: nothing but a fault explains that.",
    ELSEWHERE: "No image that the encoder is judged on lies where it was pretrained.",
}
"""Check name → what it asserts."""
_ERROR, _WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
_SHOWN = 5
"""Number of offenders named in a message."""


def possible(rows: Sequence[ScoreRow]) -> dg.AssetCheckResult:
    """Every score is a number in [0, 1] and inside its own interval."""
    from caco_assets.downstream.scoring.sanity import invalid_scores

    found = invalid_scores(rows)
    measured = sum(row.status == "measured" for row in rows)
    return dg.AssetCheckResult(
        passed=not found,
        check_name=POSSIBLE,
        severity=_ERROR,
        description=_line(found) or f"{measured} figures lie in [0, 1] and in their intervals",
        metadata={"figures": measured, "impossible": found},
    )


def not_far_below(rows: Sequence[ScoreRow], random: Sequence[ScoreRow]) -> dg.AssetCheckResult:
    """No encoder is far below an untrained one: an error. A little below is a warning: it has learned nothing."""
    from caco_assets.downstream.scoring.sanity import FAR, below_random

    found = below_random(rows, random)
    far = [str(each) for each in found if each.far]
    near = [str(each) for each in found if not each.far]
    compared = any(row.status == "measured" for row in random)
    fine = "no figure is below that of random weights" if compared else "not compared: random weights were not measured here"
    return dg.AssetCheckResult(
        passed=not found,
        check_name=NOT_FAR_BELOW,
        severity=_ERROR if far else _WARN,
        description=_line([*far, *near]) or fine,
        metadata={"compared": compared, "far_below": far, "below": near, "far_means": f"more than {FAR:g}"},
    )


def elsewhere(settings: Settings, locations: Sequence[ImageLocations], unknown: str = "") -> dg.AssetCheckResult:
    """No evaluation image lies where this profile's places are.

    Args:
        settings: the profile.
        locations: where the images of each task lie.
        unknown: why the pretraining places of the encoder cannot be compared; empty if they are the profile's.
    """
    records = [_compared(settings, locations, unknown) for locations in locations]
    met = [
        f"{record['row']}: {record['meeting']} places meet its images ({record['examples']})"
        for record in records
        if record["meeting"]
    ]
    checked = sum(bool(record["places"]) for record in records)
    silent = [f"{record['row']} not checked: {record['by']}" for record in records if not record["places"]]
    fine = [f"{checked} of {len(records)} rows checked, no place meets an image", *silent]
    return dg.AssetCheckResult(
        passed=not met,
        check_name=ELSEWHERE,
        severity=_WARN if settings.downstream.allow_overlap else _ERROR,
        description=_line(met) or "; ".join(fine),
        metadata={"rows_checked": checked, "rows_not_checked": silent, **({"rows": table(records)} if records else {})},
    )


def of_cell(cell: str, result: dg.AssetCheckResult) -> dg.AssetCheckResult:
    """Adds the cell to the result: Dagster keeps one latest result per check for all partitions."""
    return dg.AssetCheckResult(
        passed=result.passed,
        check_name=result.check_name,
        severity=result.severity,
        description=f"{cell}: {result.description}",
        metadata={"cell": cell, **result.metadata},
    )


def _compared(settings: Settings, locations: ImageLocations, unknown: str) -> dict[str, str | int]:
    from caco_assets.sampling.overlap import overlap, zone_outlines

    outlines, by = locations.outlines, "the places in the files"
    if not len(outlines) and not locations.twin:
        # boxes around a real test set, as sampling excludes them
        outlines, by = zone_outlines(locations.task), "the package's known zones of this data set"
    reason = unknown or locations.absent
    if not reason and not settings.paths.locations.exists():
        reason = "this profile has no locations.parquet"
    if not reason and not len(outlines):
        reason = "its images carry no place, and no zone of it is known"
    found = None if reason else overlap(settings, outlines)
    return {
        "row": locations.task_name,
        "images": locations.images,
        "with_place": len(locations.outlines),
        "by": reason or by,
        "places": found.places if found else 0,
        "meeting": len(found.met) if found else 0,
        "examples": ", ".join(found.met[:_SHOWN]) if found else "",
    }


def _line(found: Sequence[str]) -> str:
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more
