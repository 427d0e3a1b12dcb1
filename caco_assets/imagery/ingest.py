"""Fills one shard of the archive: tries the scenes of each place in their order until its seasons have clear chips."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

import rasterio

from caco_assets.imagery.archive import INDEX, QUARANTINE, TAR, member_name, write_index, write_quarantine, write_tar
from caco_assets.imagery.chip import encode
from caco_assets.imagery.geotiff import GDAL_OPTIONS
from caco_assets.imagery.grid import Grid, chip_footprints
from caco_assets.imagery.reader import Outcome, SceneFiles, Want, read_chips
from caco_assets.products import Facts
from caco_assets.progress import Progress, Say

SAME_PASS = timedelta(minutes=30)
"""Scenes of a place nearer in time than this come from one overpass (a tile's neighbour, a second processing): one acquisition."""
SPOOL = "spool.bin"

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A place and its chips' grid."""

    location_id: str
    lon: float
    lat: float
    grid: Grid


@dataclass
class Slot:
    """One period and season of a place: candidates not yet tried, and the chip once there is one."""

    candidates: list[Row]
    chosen: Row | None = None
    clear_fraction: float = 0.0
    spooled: tuple[int, int] = (0, 0)
    """Offset and length of the chip's GeoTIFF in the spool."""


@dataclass
class PlaceState:
    """The slots of one place, and which acquisitions are used up."""

    place: Place
    slots: dict[tuple[int, int], Slot] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """Items tried in vain: a second slot of the place does not try them again."""

    def requests(self) -> list[tuple[Slot, Row]]:
        """The next scene to try for each slot that still needs one; scenes of other seasons only once no own one is left."""
        found = []
        for period in sorted({period for period, _ in self.slots}):
            slots = [slot for (own, _), slot in sorted(self.slots.items()) if own == period]
            wanting = [slot for slot in slots if slot.chosen is None]
            for slot in wanting:
                slot.candidates = [row for row in slot.candidates if row["item_id"] not in self.refused]
            taken = [slot.chosen["datetime"] for slot in slots if slot.chosen]
            found += self._next(wanting, taken, "planned") or self._next(wanting, taken, "widened")
        return found

    @staticmethod
    def _next(slots: list[Slot], taken: list[datetime], status: str) -> list[tuple[Slot, Row]]:
        """For each slot its first candidate of that status whose acquisition no other slot has or tries now.

        A candidate passed over stays listed: the other slot may yet refuse it.
        """
        taken, found = list(taken), []
        for slot in slots:
            for row in slot.candidates:
                if row["status"] == status and all(abs(row["datetime"] - other) >= SAME_PASS for other in taken):
                    taken.append(row["datetime"])
                    slot.candidates.remove(row)
                    found.append((slot, row))
                    break
        return found

    def clear_dates(self) -> Counter[int]:
        """Seasons served, per period."""
        return Counter(period for (period, _), slot in self.slots.items() if slot.chosen)


def fill_shard(
    target: Path, shard: int, places: list[Place], rows: list[Row], want: Want, min_seasons: int, workers: int, say: Say
) -> Facts:
    """Write `chips.tar`, `chips.parquet` and `quarantine.parquet` of one shard to the folder `target`.

    The result depends on the places, the rows of `scenes.parquet` and the pixels alone, not on the number of workers.

    Args:
        target: folder to create; what an interrupted run left there is removed.
        shard: its number.
        places: of the shard, by location id.
        rows: of `scenes.parquet`, sorted by location, period, season, rank.
        want: bands, clear share, folder of the files.
        min_seasons: clear dates that a place needs in each period; the chips of a place with fewer are not archived.
        workers: threads; each reads one scene at a time.
        say: progress.

    Returns:
        Facts: `places`, `places_complete`, `chips`, `widened`, `clear_fraction` (mean), `refused` (reason → count), `bytes`.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    states = {place.location_id: PlaceState(place) for place in places}
    quarantine: list[Row] = []
    for row in rows:
        slot = states[row["location_id"]].slots.setdefault((row["period"], row["season"]), Slot([]))
        if row["status"] == "missing":
            quarantine.append(_refusal(row, shard, "no_scene", "the catalog has no scene of the place in this period"))
        else:
            slot.candidates.append(row)
    wanted = sum(len(state.slots) for state in states.values())
    progress = Progress(f"shard {shard:04d}", wanted, "chips", say)
    with (target / SPOOL).open("w+b") as spool, ThreadPoolExecutor(workers) as pool:
        while requests := [(state, *request) for state in states.values() for request in state.requests()]:
            for state, slot, row, outcome, data in _read(pool, requests, want):
                if outcome.reason is not None:
                    state.refused.add(row["item_id"])
                    quarantine.append(_refusal(row, shard, outcome.reason, outcome.detail, outcome.clear_fraction))
                else:
                    slot.chosen, slot.clear_fraction = row, outcome.clear_fraction or 0.0
                    slot.spooled = (spool.tell(), len(data))
                    spool.write(data)
                    progress.advance()
        kept = []
        for state in states.values():
            dates = state.clear_dates()
            if min(dates[0], dates[1]) >= min_seasons:
                kept.append(state)
            else:
                quarantine.append(_place_refusal(state, shard, dates, min_seasons))
        facts = _write(target, spool, kept, want)
    (target / SPOOL).unlink()
    write_quarantine(target / QUARANTINE, quarantine)
    progress.close()
    refused = dict(sorted(Counter(row["reason"] for row in quarantine).items()))
    return {"places": len(places), "places_complete": len(kept), **facts, "refused": refused}


def _read(pool: ThreadPoolExecutor, requests: list[tuple[PlaceState, Slot, Row]], want: Want) -> Iterator[tuple]:
    """Outcomes of the requests with the chips' bytes, grouped by scene, in an order that does not depend on timing."""
    groups: dict[str, list[tuple[PlaceState, Slot, Row]]] = defaultdict(list)
    for request in requests:
        groups[request[2]["item_id"]].append(request)

    def work(group: list[tuple[PlaceState, Slot, Row]]) -> list[tuple[Outcome, bytes]]:
        grids = [state.place.grid for state, _, _ in group]
        # GDAL's options belong to a thread
        with rasterio.Env(**GDAL_OPTIONS):
            outcomes = read_chips(SceneFiles.from_row(group[0][2]), grids, want)
            return [
                (outcome, b"" if outcome.pixels is None else encode(outcome.pixels, want.bands, grid))
                for outcome, grid in zip(outcomes, grids, strict=True)
            ]

    ordered = [groups[item_id] for item_id in sorted(groups)]
    for group, results in zip(ordered, pool.map(work, ordered), strict=True):
        for (state, slot, row), (outcome, data) in zip(group, results, strict=True):
            yield state, slot, row, outcome, data


def _write(target: Path, spool: IO[bytes], kept: list[PlaceState], want: Want) -> Facts:
    chips = [(state, key, slot) for state in kept for key, slot in sorted(state.slots.items()) if slot.chosen is not None]
    footprints = dict(
        zip((state.place.location_id for state in kept), chip_footprints([state.place.grid for state in kept]), strict=True)
    )

    def members() -> Iterator[tuple[str, bytes]]:
        for state, (period, season), slot in chips:
            spool.seek(slot.spooled[0])
            yield member_name(state.place.location_id, period, season), spool.read(slot.spooled[1])

    ranges = write_tar(target / TAR, members())
    rows = []
    for (state, (period, season), slot), (offset, length, sha256) in zip(chips, ranges, strict=True):
        place, chosen = state.place, slot.chosen or {}
        rows.append(
            {
                **{name: chosen[name] for name in ("datetime", "item_id", "cloud_cover", "status")},
                **{"location_id": place.location_id, "period": period, "season": season, "epsg": place.grid.epsg},
                **{"clear_fraction": slot.clear_fraction, "offset": offset, "length": length, "sha256": sha256},
                **{"lon": place.lon, "lat": place.lat, "geometry": footprints[place.location_id]},
            }
        )
    write_index(target / INDEX, rows, want.bands)
    mean = sum(row["clear_fraction"] for row in rows) / len(rows) if rows else 0.0
    widened = sum(row["status"] == "widened" for row in rows)
    return {"chips": len(rows), "widened": widened, "clear_fraction": round(mean, 4), "bytes": (target / TAR).stat().st_size}


def _refusal(row: Row, shard: int, reason: str, detail: str, clear_fraction: float | None = None) -> Row:
    kept = {name: row[name] for name in ("location_id", "period", "season", "item_id")}
    return {**kept, "shard": shard, "reason": reason, "detail": detail, "clear_fraction": clear_fraction}


def _place_refusal(state: PlaceState, shard: int, dates: Counter[int], min_seasons: int) -> Row:
    detail = f"clear dates: {dates[0]} early, {dates[1]} late; at least {min_seasons} are needed in each period"
    place = {"location_id": state.place.location_id, "period": None, "season": None, "item_id": None}
    return {**place, "shard": shard, "reason": "too_few_seasons", "detail": detail, "clear_fraction": None}
