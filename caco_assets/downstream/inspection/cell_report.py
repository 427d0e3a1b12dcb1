"""The report of one matrix cell: scores, per-class figures, confusion, and example masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from caco_assets.core.products import recorded
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from caco_assets.downstream.matrix import EvaluationCell
    from caco_assets.downstream.score_rows import ScoreRow


@dataclass(frozen=True)
class View:
    """One cell, for display."""

    facts: dict[str, str | int | float]
    """The main score and its description: `value`, `ci_low`, `ci_high`, `metric`, `n`, `protocol`, …"""
    figures: list[dict[str, Any]]
    """Every row, and those of the random network."""
    classes: list[dict[str, Any]]
    """One record per class, for the main score."""
    pictures: dict[str, bytes]
    """Name → PNG, each below `cell_figures.LIMIT` bytes."""


def shown(row: ScoreRow) -> dict[str, Any]:
    """A score row as a table line."""
    measured = row.value is not None and row.ci_low is not None and row.ci_high is not None
    return {
        "row": row.row,
        "encoder": row.encoder,
        "protocol": row.protocol,
        "method": row.method,
        "size": row.size,
        "seed": row.seed,
        "metric": row.metric,
        "value": f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]" if measured else "",
        "n": row.n,
        "status": row.status,
        "note": row.note,
    }


def view(settings: Settings, cell: EvaluationCell) -> View:
    """Build the report of a cell.

    Args:
        settings: the profile.
        cell: scored.
    """
    # the note is long, so it is listed only among the facts of the main score
    figures = [{**shown(row), "note": "" if row.status == "measured" else row.note} for row in (*cell.rows, *cell.random)]
    main = cell.main
    if main is None or main.value is None or cell.resolved.data is None:
        return View({"measured": 0, "reason": cell.rows[0].note if cell.rows else "this task has no pass for it"}, figures, [], {})
    facts: dict[str, str | int | float] = {
        "measured": sum(row.status == "measured" for row in cell.rows),
        "value": main.value,
        **{name: end for name, end in (("ci_low", main.ci_low), ("ci_high", main.ci_high)) if end is not None},
        **{name: getattr(main, name) for name in ("metric", "n", "protocol", "method", "size", "seed", "data_version", "note")},
        "model_uri": main.model_uri or "",
    }
    if (random := _mean_like(main, cell.random)) is not None:
        facts |= {"random_weights": random, "above_random": main.value - random}
    return View(facts, figures, *_made_of(settings, cell, main))


def places_unknown(settings: Settings, cell: EvaluationCell) -> str:
    """Why the pretraining places of an encoder cannot be compared with a task's images; empty if they can."""
    if not cell.data:
        baseline = cell.encoder in settings.downstream.baselines
        return "it was not pretrained on places of ours" if baseline else "it was pretrained elsewhere, on places not known here"
    places = cell.data.get("locations")
    if places is None:
        return "its registration names no locations"
    if not (settings.paths.records / "locations.json").exists():
        return f"its places (locations {places}) are not in this workspace"
    ours = recorded(settings.paths.records, "locations").content_hash
    return "" if places == ours else f"its places (locations {places}) are not those of this workspace ({ours})"


def _mean_like(main: ScoreRow, others: Sequence[ScoreRow]) -> float | None:
    """Mean over seeds of the rows about the same thing."""
    about = (main.protocol, main.method, main.size, main.metric)
    values = [row.value for row in others if (row.protocol, row.method, row.size, row.metric) == about and row.value is not None]
    return sum(values) / len(values) if values else None


def _made_of(settings: Settings, cell: EvaluationCell, main: ScoreRow) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    from caco_assets.downstream.datasets.segmentation import DenseImages
    from caco_assets.downstream.inspection import cell_figures as draw
    from caco_assets.downstream.metrics.example_masks import kept
    from caco_assets.downstream.metrics.per_class import confusion_of, figures_of

    data = cell.resolved.data
    if data is None or main.items is None:
        return [], {}
    items = settings.paths.root / main.items
    dense = isinstance(data, DenseImages)
    records = figures_of(items, data.classes, data.scored if dense else None)
    how = f"{main.protocol} {main.method.replace('_', ' ')}, seed {main.seed}"
    what = f"{cell.encoder} on {main.row}: {main.metric.replace('_', ' ')} {main.value:.3f}\n{how}"
    pictures: dict[str, bytes] = {}
    counts = confusion_of(items, len(data.classes))
    if counts is not None:
        pictures["confusion"] = draw.confusion_picture(counts, data.classes, what)
    elif records:
        pictures["classes_shown"] = draw.classes_picture(records, "average_precision", what)
    if dense and (answers := kept(items)):
        drawn = draw.masks_picture(data, answers, settings.paths.cache / "tiles", what)
        pictures |= {"examples": drawn} if drawn is not None else {}
    return records, pictures
