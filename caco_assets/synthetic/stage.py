"""The stages `catalog` (the embedded Earth as a STAC catalog of COGs) and `benchmarks` (labelled twins)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts, Product, produce, recorded
from caco_assets.core.progress import Progress
from caco_assets.core.stage_versions import stage_version
from caco_assets.settings import Settings, SyntheticSource

if TYPE_CHECKING:
    from caco_assets.synthetic.catalog.scene_plan import Tile


def build_catalog(settings: Settings) -> Product:
    """Draw the embedded Earth around the profile's places and write it as a static STAC catalog with its truth.

    Raises:
        UserError: the profile's source is not synthetic, or its places lie too far apart to draw.
    """
    source = settings.imagery.source
    if not isinstance(source, SyntheticSource):
        raise UserError(
            f"imagery.source.kind={source.kind}: only the source kind synthetic is drawn; this profile has its own imagery"
        )
    imagery = settings.imagery
    if imagery.resolution % 10:
        raise UserError(f"imagery.resolution={imagery.resolution:g}: the embedded Earth is drawn at 10 m; give a multiple of 10")
    locations = recorded(settings.paths.records, "locations")
    # the calendar of the vintage itself is what there is without one
    usual = {"calendar"} if source.calendar in (None, settings.vintage) else set[str]()

    def make(folder: Path) -> Facts:
        from caco_assets.synthetic.catalog.documents import write_documents, write_truth

        tiles = _tiles(settings, source, locations.path)
        when = settings.vintage, source.calendar or settings.vintage, settings.gap_years, imagery.period_months, imagery.seasons
        jobs = [(folder, tile, *when, source.scenes_per_season) for tile in tiles]
        per_tile = 2 * imagery.seasons * source.scenes_per_season
        progress = Progress("catalog", per_tile * len(tiles), "scenes")
        items: list[Path] = []
        truth: list[dict[str, Any]] = []
        for names, rows in _run(_draw_tile, jobs, imagery.workers):
            items += names
            truth += rows
            progress.advance(len(names))
        progress.close()
        write_documents(folder, sorted(items), f"Embedded Earth, seed {settings.seed}, vintage {settings.vintage}")
        write_truth(folder / "truth" / "change.parquet", truth)
        changed = sum(row["changed"] for row in truth)
        return {
            "scenes": len(items),
            "tiles": len(tiles),
            "places": len(truth),
            "changed_places": changed,
            "changed_share": round(changed / max(len(truth), 1), 4),
        }

    return produce(
        "catalog",
        settings.paths.catalog,
        records=settings.paths.records,
        recipe=stage_version("catalog"),
        inputs={
            "locations": locations.content_hash,
            "source": source.model_dump(mode="json", exclude={"benchmark_images_per_class", *usual}),
            "seed": settings.seed,
            "vintage": settings.vintage,
            "gap_years": settings.gap_years,
            "imagery": imagery.model_dump(mode="json", include={"chip_size", "resolution", "seasons", "period_months"}),
        },
        make=make,
    )


TWINS: dict[str, str] = {
    **{"aid_20": "aid", "aid_50": "aid", "bigearthnet": "bigearthnet", "bigearthnet_v2": "bigearthnet_v2"},
    **{name: name for name in ("oscd", "dynamicearthnet", "levir_cd", "whu_cd", "loveda", "potsdam", "vaihingen")},
}
"""Task → the folder of its twin, where that is not EuroSAT's; the folder's twin is drawn by `synthetic/twins/<folder>.py`:
`write_twin(folder, seed, count) -> Facts`, `count` being the number of images that EuroSAT's twin has in each class."""


def build_benchmarks(settings: Settings) -> Product:
    """Write the labelled twins of the embedded Earth in the layouts of the real data sets.

    EuroSAT's always, the others' where the profile has a row for their task without data of its own. Profiles with imagery of
    their own get twins of the default size.
    """
    count = _images_per_class(settings)
    others = sorted({TWINS[row.task] for row in settings.downstream.tasks.values() if row.data is None and row.task in TWINS})

    def make(folder: Path) -> Facts:
        from caco_assets.synthetic.twins.eurosat import draw_town, towns, write_twin

        progress = Progress("benchmarks", 10 * count, "pictures")
        pictures = []
        for found in _run(draw_town, [(settings.seed, *town) for town in towns(settings.seed, count)], settings.imagery.workers):
            pictures += found
            progress.advance(len(found))
        facts = write_twin(folder, settings.seed, pictures)
        progress.close()
        for name in others:
            facts |= {f"{name}_{fact}": value for fact, value in _writer(name)(folder / name, settings.seed, count).items()}
        return facts

    return produce(
        "benchmarks",
        settings.paths.benchmarks,
        records=settings.paths.records,
        recipe=stage_version("benchmarks"),
        inputs={"seed": settings.seed, "benchmark_images_per_class": count, **({"twins": others} if others else {})},
        make=make,
    )


def build_twin(settings: Settings, task: str) -> Product:
    """Write the twin of one task alone, beside the benchmarks of the profile: for judging on a task that the profile lacks.

    Args:
        settings: the profile.
        task: a key of `TWINS`.
    """
    name, count = TWINS[task], _images_per_class(settings)
    return produce(
        f"twins/{name}",
        settings.paths.root / "twins" / name,
        records=settings.paths.records,
        recipe=stage_version("benchmarks"),
        inputs={"seed": settings.seed, "benchmark_images_per_class": count},
        make=lambda folder: _writer(name)(folder, settings.seed, count),
    )


def _images_per_class(settings: Settings) -> int:
    source = settings.imagery.source if isinstance(settings.imagery.source, SyntheticSource) else SyntheticSource()
    return source.benchmark_images_per_class


def _writer(name: str) -> Callable[[Path, int, int], Facts]:
    """The function that draws the twin of a folder."""
    return import_module(f"caco_assets.synthetic.twins.{name}").write_twin


def _run[T](work: Callable[..., T], jobs: list[tuple[Any, ...]], workers: int) -> Iterator[T]:
    """Results of `work(*job)` as they are ready; a process of its own pays off from two jobs each."""
    workers = min(workers, len(jobs) // 2)
    if workers < 2:
        for job in jobs:
            yield work(*job)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(work, *job) for job in jobs]
        try:
            for future in as_completed(pending):
                yield future.result()
        finally:
            for future in pending:
                future.cancel()


def _tiles(settings: Settings, source: SyntheticSource, locations: Path) -> list[Tile]:
    """Group the places by city and UTM zone; give each group its scene footprint and its events."""
    import numpy as np
    import pyarrow.parquet as pq

    from caco_assets.imagery.geometry.chip_grid import chip_grids
    from caco_assets.imagery.scenes.periods import period_spans, period_windows
    from caco_assets.synthetic.catalog import scene_plan
    from caco_assets.synthetic.earth.region import region

    imagery = settings.imagery
    table = pq.read_table(locations, columns=["location_id", "lon", "lat", "city", "country", "distance_km"]).to_pydict()
    ids, lon, lat, distance = (np.array(table[name]) for name in ("location_id", "lon", "lat", "distance_km"))
    cities = np.array([f"{country}/{city}" for country, city in zip(table["country"], table["city"], strict=True)])
    grids = chip_grids(lon, lat, imagery.chip_size, imagery.resolution)
    when = source.calendar or settings.vintage
    early, late = period_spans(period_windows(when, settings.gap_years, imagery.period_months, imagery.seasons))
    between = early[1], max(late[0], early[1])
    side = imagery.chip_size * imagery.resolution
    tiles = []
    for number, city in enumerate(sorted(set(cities.tolist()))):
        own = np.flatnonzero(cities == city)
        centre = scene_plan.centre_of(lon[own], lat[own], distance[own])
        for epsg in sorted({grids[k].epsg for k in own}):
            spots = tuple(
                scene_plan.Spot(int(k), str(ids[k]), grids[k].left, grids[k].top, side) for k in own if grids[k].epsg == epsg
            )
            try:
                window = scene_plan.window_around(epsg, [(spot.left, spot.top, side) for spot in spots])
            except ValueError as error:
                raise UserError(f"sampling: {city}: {error}; lower sampling.sigma_km or use a real imagery.source") from error
            here = region(settings.seed, city, *centre, epsg)
            events = scene_plan.events_of(settings.seed, here, spots, source.changed_share, between)
            slug = re.sub(r"[^A-Za-z0-9]+", "-", city.partition("/")[2]).strip("-")[:24] or "place"
            tiles.append(scene_plan.Tile(f"{number:04d}-{slug}-{epsg % 1000:03d}", here, window, spots, events))
    return tiles


def _draw_tile(
    folder: Path, tile: Tile, vintage: str, calendar: str, gap_years: int, period_months: int, seasons: int, per_season: int
) -> tuple[list[Path], list[dict[str, Any]]]:
    """Write all scenes of one tile and the truth of its places (runs in a process of its own)."""
    from caco_assets.synthetic.catalog import scene_plan
    from caco_assets.synthetic.catalog.documents import truth_of
    from caco_assets.synthetic.catalog.scene_writer import COLLECTION, write_scene
    from caco_assets.synthetic.earth.earth import Earth

    earth = Earth(tile.region, tile.events)
    looks = scene_plan.overpasses(tile, vintage, calendar, gap_years, period_months, seasons, per_season)
    items = [write_scene(folder / COLLECTION, tile, earth, look) for look in looks]
    return items, truth_of(folder / "truth", earth.view(tile.window), tile.spots)
