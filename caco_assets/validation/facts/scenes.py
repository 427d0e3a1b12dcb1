"""Facts of `scenes.parquet`: whether every wanted date has a scene, and whether each scene is consistent."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from caco_assets.imagery.scenes.periods import period_spans, period_windows
from caco_assets.settings import Settings
from caco_assets.validation.facts.table import Frame, Table, missing_fields, numbers, read_parquet, slot_id

KEYS = ("location_id", "shard", "period", "season", "status")
SCENE = ("rank", "item_id", "datetime", "epsg", "scale", "offset", "hrefs")
"""Fields that every row with a scene must have. Cloud cover and processing baseline may be unknown: a folder's files have none."""

OFFSET_BASELINE = 4.0
"""From this Sentinel-2 processing baseline (2022-01-25) digital numbers carry +1000 (ESA, Sentinel-2 products specification)."""


def scenes(settings: Settings) -> list[Table]:
    """`scenes`: one row per candidate of a date. `scenes.places`: one row per place, with the dates it lacks.

    Raises:
        UserError: a product is absent or unreadable.
    """
    import pandas as pd

    frame = read_parquet(settings.paths.scenes, (*KEYS, *SCENE, "cloud_cover", "processing_baseline"))
    numbers(frame, ("shard", "period", "season", "rank", "cloud_cover", "epsg", "scale", "offset"))
    frame["datetime"] = pd.to_datetime(frame["datetime"], errors="coerce", utc=True)
    places = read_parquet(settings.paths.locations, ("location_id",))["location_id"]
    return [Table("scenes", _candidates(frame, set(places), settings)), Table("scenes.places", _places(frame, places, settings))]


def _candidates(frame: Frame, known: set[str], settings: Settings) -> Frame:
    import pandas as pd

    table = frame.drop(columns=["datetime"])
    has_scene = (frame["status"] != "missing").to_numpy()
    slots = zip(frame["location_id"], frame["period"], frame["season"], frame["rank"], strict=True)
    table["id"] = [
        slot_id(place, period, season) + ("" if np.isnan(rank) else f"r{rank:.0f}") for place, period, season, rank in slots
    ]
    keys, fields = missing_fields(frame, KEYS), missing_fields(frame, SCENE)
    table["missing_fields"] = [
        ",".join(filter(None, (key, field if has else ""))) for key, field, has in zip(keys, fields, has_scene, strict=True)
    ]
    table["location_known"] = frame["location_id"].isin(known)
    table["status"] = frame["status"].fillna("")
    windows = period_windows(settings.vintage, settings.gap_years, settings.imagery.period_months, settings.imagery.seasons)
    outside = [
        _days_outside(when, period, season, status, windows)
        for when, period, season, status in zip(frame["datetime"], frame["period"], frame["season"], frame["status"], strict=True)
    ]
    table["days_outside_period"] = [days[0] for days in outside]
    table["days_outside_season"] = [days[1] for days in outside]
    table["bands_missing"] = [_bands_missing(text, settings.imagery.bands) for text in frame["hrefs"]]
    baseline: Frame = pd.to_numeric(frame["processing_baseline"], errors="coerce")
    table["offset_expected"] = np.where((baseline >= OFFSET_BASELINE) & (frame["offset"] == 0), "no offset", "")
    return table


def _days_outside(when: Any, period: float, season: float, status: str, windows: list[list[Any]]) -> tuple[float, float]:
    """Days from the date to its period, and for a `planned` scene to its season's window; 0 inside or where there is no date."""
    in_range = period in (0, 1) and season in range(len(windows[0]))
    if status == "missing" or when != when or not in_range:  # noqa: PLR0124 - NaT is unlike itself
        return 0.0, 0.0
    season_gap = _gap_days(when, windows[int(period)][int(season)]) if status == "planned" else 0.0
    return _gap_days(when, period_spans(windows)[int(period)]), season_gap


def _gap_days(when: Any, interval: tuple[Any, Any]) -> float:
    before, after = (interval[0] - when).total_seconds(), (when - interval[1]).total_seconds()
    # the interval is half-open: its end is outside by the smallest step
    return max(0.0, before, after, 1.0 if after == 0 else 0.0) / 86_400


def _bands_missing(hrefs: Any, bands: tuple[str, ...]) -> str:
    if not isinstance(hrefs, str):
        return ""
    try:
        found = json.loads(hrefs)
    except json.JSONDecodeError:
        return "not JSON"
    return ",".join(band for band in bands if band not in found)


def _places(frame: Frame, places: Frame, settings: Settings) -> Frame:
    import pandas as pd

    wanted = [(period, season) for period in (0, 1) for season in range(settings.imagery.seasons)]
    listed: dict[str, set[tuple[float, float]]] = {}
    ranks: dict[tuple[str, float, float], list[Any]] = {}
    dates = {}
    for place, period, season, rank, status in zip(
        frame["location_id"], frame["period"], frame["season"], frame["rank"], frame["status"], strict=True
    ):
        listed.setdefault(place, set()).add((period, season))
        ranks.setdefault((place, period, season), []).append(None if status == "missing" else rank)
        if status in ("planned", "widened"):
            dates.setdefault((place, period), set()).add(season)
    broken: dict[str, list[str]] = {}
    for (place, period, season), found in ranks.items():
        if found != [None] and sorted(found, key=lambda rank: -1 if rank is None else rank) != list(range(len(found))):
            broken.setdefault(place, []).append(slot_id("", period, season).lstrip("/"))
    rows = [
        {
            "id": place,
            "dates_absent": ",".join(f"p{p}s{s}" for p, s in wanted if (p, s) not in listed.get(place, ())),
            "ranks_broken": ",".join(broken.get(place, [])),
            "dates_early": len(dates.get((place, 0), ())),
            "dates_late": len(dates.get((place, 1), ())),
        }
        for place in places
    ]
    return pd.DataFrame(rows, columns=["id", "dates_absent", "ranks_broken", "dates_early", "dates_late"])
