"""How long 100 000 places take to be planned over an index of 1 000 000 Sentinel-2 items, in how much memory.

The index is made up as real ones are: tiles of 109.8 km in their UTM zones, visited every five days for five years by one or two
orbits, whose swath cuts a third of the tiles; 13 assets with hrefs of the length providers have; rows in order of time, as an index
grows. Places lie around cities. `write_plan` runs in a process of its own, whose peak memory is read at its end: once for a few
places, once for all, so that growth shows. The limit of two minutes is held against the wall clock; CPU seconds are printed too.

The other side is the plain way: the items near each place from geopandas' spatial index, then a loop. It is given a smaller index,
held in memory as it needs; both sides do the same sample of places, by turns, and the ratio is of their CPU times. The plain side's
reading of the index is left out; ours counts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from caco_assets.imagery.catalogs.static import StaticCatalog
from caco_assets.imagery.geometry.chip_grid import Grid, box_footprints, chip_footprints
from caco_assets.imagery.planning.plan import Sites, write_plan
from caco_assets.imagery.planning.ranking import Limits
from caco_assets.imagery.scenes.periods import period_windows
from caco_assets.settings import S2_BANDS

LIMIT_S, LIMIT_MB, BAR = 120.0, 1500.0, 3.0
WINDOWS = period_windows("2026-10", 4, 12, 5)
START = datetime(2021, 11, 1, tzinfo=UTC)
YEARS, REVISIT_DAYS = 5, 5
LIMITS = Limits(90.0, 8)
ROW_GROUP = 20_000


def tile_origins(count: int, rng: np.random.Generator) -> list[tuple[int, str, float, float]]:
    """EPSG, name, left and top of tiles around cities: clusters of two by two neighbours."""
    tiles: dict[str, tuple[int, str, float, float]] = {}
    while len(tiles) < count:
        zone, column, row = int(rng.integers(1, 61)), int(rng.integers(3, 7)), int(rng.integers(5, 60))
        for right in range(2):
            for down in range(2):
                left, top = 100_000.0 * (column + right) - 40, 100_000.0 * (row - down) + 40
                square = "ABCDEFGH"[column + right] + "ABCDEFGHJKLMNPQRSTUV"[(row - down) % 20]
                name = f"{zone:02d}{'NPQRSTUVWX'[min(row // 9, 9)]}{square}"
                tiles.setdefault(f"{zone}-{left}-{top}", (32600 + zone, name, left, top))
    return list(tiles.values())[:count]


def write_index(path: Path, tiles: list[tuple[int, str, float, float]], items: int, rng: np.random.Generator) -> None:
    """stac-geoparquet of so many items, a visit of all tiles after the other."""
    whole = [box_footprints(epsg, np.array([[left, top - 109_800, left + 109_800, top]]))[0] for epsg, _, left, top in tiles]
    cut = [
        box_footprints(epsg, np.array([[left, top - 109_800, left + 30_000 + 60_000 * float(share), top]]))[0]
        for (epsg, _, left, top), share in zip(tiles, rng.random(len(tiles)), strict=True)
    ]
    shapes = np.stack([shapely.to_wkb(np.array(whole, object)), shapely.to_wkb(np.array(cut, object))])
    facts = pa.array([[{"scale": 1e-4, "offset": -0.1, "nodata": 0}]])
    names = np.array([tile[1] for tile in tiles], object)
    codes = np.array([f"EPSG:{tile[0]}" for tile in tiles], object)
    writer, done, visit = None, 0, 0
    while done < items:
        rows = np.arange(min(ROW_GROUP, items - done)) + done
        done += len(rows)
        tile, visit = rows % len(tiles), rows // len(tiles)
        moments = [
            START + timedelta(days=float(day), seconds=float(second))
            for day, second in zip(visit * (365 * YEARS / (items / len(tiles))), (tile * 7) % 3600, strict=True)
        ]
        ids = [
            f"S2{'AB'[v % 2]}_T{name}_{moment:%Y%m%dT%H%M%S}_L2A"
            for v, name, moment in zip(visit, names[tile], moments, strict=True)
        ]
        folders = [
            f"https://sentinel-cogs.s3.us-west-2.amazonaws.com/sentinel-s2-c1-l2a/{n[:2]}/{n[2]}/{n[3:]}/{m.year}/{m.month}/{i}/"
            for n, m, i in zip(names[tile], moments, ids, strict=True)
        ]
        base = pa.array(folders)
        assets = {}
        for band in (*S2_BANDS, "SCL"):
            hrefs = pc.binary_join_element_wise(base, f"{band}.tif", "")
            fields = {"href": hrefs, "type": pa.array(["image/tiff; application=geotiff; profile=cloud-optimized"] * len(rows))}
            if band != "SCL":
                fields["raster:bands"] = facts.take(np.zeros(len(rows), np.int64))
            assets[band] = pa.StructArray.from_arrays(list(fields.values()), list(fields))
        table = pa.table(
            {
                "type": ["Feature"] * len(rows), "id": ids, "collection": ["sentinel-2-c1-l2a"] * len(rows),
                "geometry": pa.array(shapes[(visit % 3 == 0).astype(int), tile], pa.binary()),
                "assets": pa.StructArray.from_arrays(list(assets.values()), list(assets)),
                "datetime": pa.array(moments, pa.timestamp("us", tz="UTC")),
                "eo:cloud_cover": rng.beta(0.6, 0.6, len(rows)) * 100, "proj:code": codes[tile],
                "s2:processing_baseline": ["05.11"] * len(rows),
            }
        )  # fmt: skip
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()


def places_in(tiles: list[tuple[int, str, float, float]], count: int, rng: np.random.Generator) -> Sites:
    """Places of the tiles, a few around each of many towns, in an order that says nothing of where they lie."""
    tile = rng.integers(0, len(tiles), count)
    epsg, left, top = (np.array([tiles[number][column] for number in tile]) for column in (0, 2, 3))
    town = rng.uniform(0.1, 0.9, (len(tiles), 3, 2))[tile, rng.integers(0, 3, count)] + rng.normal(0, 0.1, (count, 2))
    shift = np.round(np.clip(town, 0.02, 0.95) * 10_900) * 10
    ids = np.array([f"L{number:07d}" for number in range(count)], object)
    shards = (np.arange(count) // 500).astype(np.int32)
    return Sites(ids, shards, epsg.astype(np.int32), left + shift[:, 0] - 1320, top - shift[:, 1] + 1320, 2640.0)


def ours(index: Path, sites: Sites, target: Path) -> dict[str, int]:
    """The whole of planning, the index's reading included."""
    catalog = StaticCatalog.open(index, S2_BANDS, target.parent)
    return write_plan(target, sites, catalog, WINDOWS, LIMITS, target.parent / "scratch")


def plain(frame: Any, items: list[dict], sites: Sites) -> list[dict]:
    """For each place its items from geopandas' spatial index, sorted season by season."""
    grids = [Grid(int(e), float(x), float(y), 264, 10.0) for e, x, y in zip(sites.epsg, sites.left, sites.top, strict=True)]
    rows = []
    for number, chip in enumerate(chip_footprints(grids)):
        near = frame.iloc[frame.sindex.query(chip, predicate="within")]
        for period, seasons in enumerate(WINDOWS):
            span = near[(near["datetime"] >= seasons[0][0]) & (near["datetime"] < seasons[-1][1]) & (near["cloud"] <= 90)]
            for season, (start, end) in enumerate(seasons):
                own = span[(span["datetime"] >= start) & (span["datetime"] < end)].sort_values(["cloud", "datetime", "id"])[:8]
                other = span[(span["datetime"] < start) | (span["datetime"] >= end)]
                gap = np.maximum((start - other["datetime"]), (other["datetime"] - end))
                other = other.assign(gap=gap).sort_values(["gap", "cloud"])[:8].sort_values(["cloud", "datetime", "id"])
                for rank, item in enumerate([*own["item"], *other["item"]]):
                    hrefs = json.dumps({band: asset["href"] for band, asset in items[item]["assets"].items()})
                    rows.append({"place": number, "period": period, "season": season, "rank": rank, "hrefs": hrefs})
    return rows


def load_plain(index: Path) -> tuple[Any, list[dict]]:
    """A GeoDataFrame of the items, and their assets."""
    import geopandas

    table = pq.read_table(index)
    columns = {name: table[name].to_pylist() for name in ("id", "datetime")}
    columns |= {"cloud": table["eo:cloud_cover"].to_pylist(), "item": range(table.num_rows)}
    frame = geopandas.GeoDataFrame(columns, geometry=shapely.from_wkb(table["geometry"].to_numpy()), crs=4326)
    return frame, [{"assets": assets} for assets in table["assets"].to_pylist()]


def measured(index: Path, sites: Sites, target: Path, queue: Any) -> None:
    """In a process of its own: seconds on the clock and of CPU (imports included), peak megabytes, facts."""
    start = time.monotonic()
    facts = ours(index, sites, target)
    used = resource.getrusage(resource.RUSAGE_SELF)
    queue.put((time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, facts))


def in_process(index: Path, sites: Sites, target: Path) -> tuple[float, float, float, dict[str, int]]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measured, args=(index, sites, target, queue))
    process.start()
    result = queue.get()
    process.join()
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 000 items, 5 000 places")
    quick = parser.parse_args().quick
    items, places, sample = (100_000, 5_000, 100) if quick else (1_000_000, 100_000, 200)
    rng = np.random.default_rng(0)
    tiles = tile_origins(items * REVISIT_DAYS // (365 * YEARS), rng)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_index(home / "index.parquet", tiles, items, rng)
        size = (home / "index.parquet").stat().st_size >> 20
        print(f"index: {items} items of {len(tiles)} tiles, {size} MB; rows in order of time", flush=True)
        print("| places | seconds | CPU seconds | peak memory (MB) | candidates | scenes.parquet (MB) |\n|---|---|---|---|---|---|")
        for count in (places // 10, places):
            seconds, cpu_s, peak, facts = in_process(
                home / "index.parquet", places_in(tiles, count, np.random.default_rng(1)), home / "scenes.parquet"
            )
            written = (home / "scenes.parquet").stat().st_size >> 20
            print(f"| {count} | {seconds:.1f} | {cpu_s:.1f} | {peak:.0f} | {facts['candidates']} | {written} |", flush=True)
        small = tiles[: 20 if quick else 60]
        write_index(home / "small.parquet", small, len(small) * 365 * YEARS // REVISIT_DAYS, rng)
        sites = places_in(small, sample, np.random.default_rng(2))
        frame, loaded = load_plain(home / "small.parquet")
        ratios, ours_s, plain_s = [], [], []
        for _ in range(3):
            start = time.process_time()
            ours(home / "small.parquet", sites, home / "small-scenes.parquet")
            middle = time.process_time()
            plain(frame, loaded, sites)
            ours_s.append(middle - start)
            plain_s.append(time.process_time() - middle)
            ratios.append(plain_s[-1] / ours_s[-1])
    print(
        f"{sample} places, {len(loaded)} items, CPU seconds: ours {min(ours_s):.2f}–{max(ours_s):.2f} with reading the index, "
        f"place by place {min(plain_s):.2f}–{max(plain_s):.2f} without"
    )
    limit = LIMIT_S if not quick else 60.0
    passed = seconds <= limit and peak <= LIMIT_MB and min(ratios) >= BAR
    line = {
        "benchmark": "planning",
        "ratio": round(statistics.median(ratios), 2),
        "low": round(min(ratios), 2),
        "high": round(max(ratios), 2),
    }
    print(
        json.dumps(
            {**line, "bar": BAR, "seconds": round(seconds, 1), "cpu_s": round(cpu_s, 1), "peak_mb": round(peak), "pass": passed}
        )
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
