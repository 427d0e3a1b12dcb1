"""Imports one place of the published layout: its chips, or the reasons why it has none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from caco_assets.core.errors import UserError
from caco_assets.imagery.archive.chip import encode
from caco_assets.imagery.geometry.chip_grid import chip_footprints
from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.scenes.periods import period_windows
from caco_assets.imagery.seco_layout.layout import DateFolder, PlaceFolder, list_dates
from caco_assets.imagery.seco_layout.periods import Slot, slots_of
from caco_assets.imagery.seco_layout.pixels import Numbers, Position, read_pixels, read_position
from caco_assets.settings import Settings
from caco_assets.settings.imagery_sources import SecoLayoutSource

Row = dict[str, Any]


@dataclass(frozen=True)
class Rules:
    """The rules that decide which chips are imported; all of them enter the products' fingerprints."""

    bands: tuple[str, ...]
    size: int
    resolution: float
    seasons: int
    min_seasons: int
    min_clear: float
    periods: str
    calendar: tuple[str, int, int]
    numbers: Numbers

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """The profile's.

        Raises:
            UserError: the profile's imagery comes from elsewhere.
        """
        imagery, source = settings.imagery, settings.imagery.source
        if not isinstance(source, SecoLayoutSource):
            raise UserError(
                f"imagery.source.kind={source.kind}: this profile makes its own archive, which an import would overwrite; "
                "use a profile with kind published (such as `seco`)"
            )
        calendar = (settings.vintage, settings.gap_years, imagery.period_months)
        numbers = Numbers(source.scale, source.offset, source.nodata)
        shape = (imagery.bands, imagery.chip_size, imagery.resolution, imagery.seasons, imagery.min_seasons, imagery.min_clear)
        return cls(*shape, source.periods, calendar, numbers)


@dataclass
class Taken:
    """The outcome of one place."""

    place: PlaceFolder
    position: Position | None = None
    lonlat: tuple[float, float] = (0.0, 0.0)
    chips: list[tuple[Row, bytes]] = field(default_factory=list)
    """Index row and GeoTIFF, by period and season."""
    refused: list[Row] = field(default_factory=list)


def take(place: PlaceFolder, rules: Rules) -> Taken:
    """The chips of one place, or the reasons why it has none."""
    taken = Taken(place)
    dates, undated = list_dates(place)
    taken.refused += [_refusal(place, name, "incomplete", detail) for name, detail in undated.items()]
    slots = _slots(dates, rules)
    for date, slot in zip(dates, slots, strict=True):
        if slot is None:
            detail = f"not among the {rules.seasons} newest dates of a period (rule {rules.periods})"
            taken.refused.append(_refusal(place, date.path.name, "surplus", detail))
    # the newest date decides the place's position
    for date, slot in sorted(
        ((d, s) for d, s in zip(dates, slots, strict=True) if s), key=lambda pair: pair[0].datetime, reverse=True
    ):
        try:
            taken.chips.append(_chip(taken, date, slot, rules))
        except UnreadableError as error:
            taken.refused.append(_refusal(place, date.path.name, error.reason, error.detail, slot))
    taken.chips.sort(key=lambda chip: (chip[0]["period"], chip[0]["season"]))
    count = Counter(row["period"] for row, _ in taken.chips)
    if min(count[0], count[1]) < rules.min_seasons:
        detail = f"usable dates: {count[0]} early, {count[1]} late; at least {rules.min_seasons} are needed in each period"
        taken.refused.append(_refusal(place, None, "too_few_seasons", detail))
        taken.chips = []
    return taken


def _chip(taken: Taken, date: DateFolder, slot: Slot, rules: Rules) -> tuple[Row, bytes]:
    position = read_position(date, rules.bands, rules.size, rules.resolution)
    if taken.position is None:
        taken.position, taken.lonlat = position, place_of(date, position)
    elif not position.agrees(taken.position):
        raise UnreadableError("outside_footprint", "lies elsewhere than the newest date of its place")
    pixels = read_pixels(date, rules.bands, rules.numbers, rules.size)
    share = float((pixels != 0).any(axis=0).mean())
    if share < rules.min_clear:
        raise UnreadableError("nodata", f"{share:.0%} of it has data (at least {rules.min_clear:.0%})")
    own, grid = date.own, taken.position.grid
    row = {
        **{"location_id": taken.place.location_id, "period": slot[0], "season": slot[1], "datetime": date.datetime},
        **{"item_id": own.get("item_id", date.path.name), "epsg": grid.epsg, "cloud_cover": date.cloud_cover},
        **{"clear_fraction": own.get("clear_fraction", share), "status": own.get("status", "planned")},
        **{"lon": taken.lonlat[0], "lat": taken.lonlat[1], "geometry": chip_footprints([grid])[0]},
    }
    return row, encode(pixels, rules.bands, grid)


def place_of(date: DateFolder, position: Position) -> tuple[float, float]:
    """lon, lat of a place: from the metadata of our own export, else the middle of the date's chip."""
    if "lon" in date.own and "lat" in date.own:
        return float(date.own["lon"]), float(date.own["lat"])
    return round(position.lon, 6), round(position.lat, 6)


def _slots(dates: list[DateFolder], rules: Rules) -> list[Slot | None]:
    """From the metadata of our own export, if it covers every date; otherwise by the rule."""
    stated = [(date.own.get("period"), date.own.get("season")) for date in dates]
    if stated and len(set(stated)) == len(stated) and all(p in (0, 1) and s in range(rules.seasons) for p, s in stated):
        return [(int(period), int(season)) for period, season in stated]  # pyright: ignore[reportArgumentType]
    return slots_of([date.datetime for date in dates], rules.periods, period_windows(*rules.calendar, rules.seasons))


def _refusal(place: PlaceFolder, item: str | None, reason: str, detail: str, slot: Slot | None = None) -> Row:
    period, season = slot or (None, None)
    subject = {"location_id": place.location_id, "item_id": item, "period": period, "season": season}
    return {**subject, "reason": reason, "detail": detail, "clear_fraction": None}
