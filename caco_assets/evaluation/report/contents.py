"""Collects facts, counts and images for the report from the products on disk, without recomputing anything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caco_assets.core.products import Product, recorded
from caco_assets.evaluation.report.charts import curve, data_uri, histogram
from caco_assets.settings import Settings

PRODUCTS = ("catalog", "benchmarks", "locations", "scenes", "quarantine", "pack", "encoder", "change_maps", "scores")
REASONS = {
    "cloudy": "too cloudy",
    "nodata": "no data in part of the chip",
    "unreadable": "file could not be read",
    "no_scene": "no scene in the season",
    "outside_footprint": "outside the scene",
    "too_few_seasons": "place with too few clear dates",
}
ESTIMATES = (
    ("change_map", "change map: least distance across the periods over that within them"),
    ("pixel_min", "pixels: least difference across the periods"),
    ("pixel_mean", "pixels: mean difference across the periods over that within them"),
)
"""Rows of the table of change maps; the baselines are plain arithmetic."""


@dataclass(frozen=True)
class Picture:
    """An image embedded in the page."""

    source: str
    """Data URI."""
    alt: str
    caption: str


def made(settings: Settings) -> dict[str, Product]:
    """The recorded products of the profile, in pipeline order."""
    records = settings.paths.records
    return {name: recorded(records, name) for name in PRODUCTS if (records / f"{name}.json").exists()}


def validations(settings: Settings) -> list[dict[str, Any]]:
    """Results of validation, one record per product."""
    results = []
    for name in (*PRODUCTS, "archive"):
        file = settings.paths.data_docs / "results" / f"{name}.json"
        if file.exists():
            results.append(json.loads(file.read_text()))
    return results


def pictures(settings: Settings) -> dict[str, Picture]:
    """Map, chips, change histogram and gallery, each only if its product exists."""
    from caco_assets.imagery.archive.preview import chips_preview
    from caco_assets.sampling.map import world_map

    paths = settings.paths
    histogram_file = paths.encoder / "change_histogram.png"
    gallery_file = paths.encoder / "change_gallery.png"
    wanted: dict[str, tuple[Path, Callable[[], bytes], str, str]] = {
        "map": (
            paths.locations,
            lambda: world_map(paths.locations),
            "Map of the sampled places.",
            "Where the pixels come from: every dot is a place.",
        ),
        "chips": (
            paths.archive,
            lambda: chips_preview(paths.archive),
            "Chips of some places, one row per place, one column per date.",
            "What the encoder saw: rows are places, columns are dates from early to late.",
        ),
        "change": (
            histogram_file,
            histogram_file.read_bytes,
            "Histogram of the change estimate of all places with the threshold between unchanged and changed.",
            "Change: only places beyond the threshold serve as long-term negatives.",
        ),
        "gallery": (
            gallery_file,
            gallery_file.read_bytes,
            "Pairs of early and late images of the places that have changed most and least, with estimate and label.",
            "What the estimate calls change: the places at both ends, early beside late.",
        ),
        "maps": (
            paths.change_maps / "gallery.png",
            (paths.change_maps / "gallery.png").read_bytes,
            "Early and late chips of some places with their change maps and, where known, the true change.",
            "Change maps: what differs in every pair of dates, relative to the seasons; and the worst errors where truth is known.",
        ),
    }
    return {
        name: Picture(data_uri(draw()), alt, caption) for name, (source, draw, alt, caption) in wanted.items() if source.exists()
    }


def change_figures(settings: Settings) -> list[tuple[str, str, list[dict[str, float] | None]]]:
    """Rows of the table of change maps against truth: name, what it is, and its figures; empty without truth.

    Returns:
        Per estimate: AUROC of places and average precision of cells, each with `value`, `low`, `high`; None where not known.
    """
    file = settings.paths.change_maps / "figures.json"
    figures = json.loads(file.read_text()) if file.exists() else {}
    rows = [(name, words, [figures.get(f"{kind}_{name}") for kind in ("place_auroc", "cell_ap")]) for name, words in ESTIMATES]
    return rows if figures.get(f"place_auroc_{ESTIMATES[0][0]}") else []


def quarantine(settings: Settings) -> list[tuple[str, str, int]]:
    """Reason code, reason in words, count; the most frequent first."""
    from pyarrow import parquet

    if not settings.paths.quarantine.exists():
        return []
    reasons = [str(reason) for reason in parquet.read_table(settings.paths.quarantine, columns=["reason"])["reason"].to_pylist()]
    return [(code, REASONS.get(code, code), count) for code, count in Counter(reasons).most_common()]


def clear_fractions(settings: Settings) -> dict[str, Any]:
    """How clear the archived chips are: their number, mean, and a histogram; empty without an archive."""
    from pyarrow import parquet

    files = sorted(settings.paths.archive.glob("shard=*/chips.parquet"))
    if not files:
        return {}
    values = np.concatenate([parquet.read_table(file, columns=["clear_fraction"]).column(0).to_numpy() for file in files])
    if not len(values):
        return {}
    low = float(np.floor(values.min() * 20) / 20) if values.min() < 1 else 0.9
    what = f"Histogram of the clear share of {len(values)} chips, mean {values.mean():.1%}."
    return {"chips": len(values), "mean": float(values.mean()), "chart": histogram(values, 20, low, 1.0, what)}


def training(settings: Settings) -> dict[str, Any]:
    """The loss curve, its ends, and the recipe; empty without an encoder."""
    file = settings.paths.encoder / "metrics.jsonl"
    if not file.exists():
        return {}
    lines = [json.loads(line) for line in file.read_text().splitlines() if line]
    steps = [line for line in lines if "loss" in line]
    description = json.loads((settings.paths.encoder / "encoder.json").read_text())
    found: dict[str, Any] = {"recipe": description.get("recipe", {}), "data": description.get("data", {})}
    if steps:
        loss = np.array([line["loss"] for line in steps])
        window = max(1, len(loss) // 30)
        sums = np.cumsum(np.insert(loss, 0, 0.0))
        # mean of the last `window` steps, of fewer at the start
        starts = np.maximum(np.arange(1, len(loss) + 1) - window, 0)
        smooth = (sums[1:] - sums[starts]) / (np.arange(1, len(loss) + 1) - starts)
        what = f"Loss over {len(loss)} steps: from {smooth[0]:.2f} at the start to {smooth[-1]:.2f} at the end."
        found |= {"chart": curve([line["step"] for line in steps], loss.tolist(), smooth.tolist(), what), "steps": len(loss)}
        found |= {"first_loss": float(smooth[0]), "last_loss": float(smooth[-1])}
    return found
