"""Chips per second read over HTTP: against what latency and connections permit, and against `odc-stac`.

A server on loopback, in a process of its own, answers each request 50 ms late and serves scenes in the layout of a provider: a COG
per band of 40.92 km at 10, 20 and 60 m and a scene classification, deflate with predictor, blocks of 512², overviews. Both sides
read the same chips (264 pixels at 10 m, 7 bands and the classification) with the same number of connections, in turns.

* **ideal** = connections / (latency × requests per chip). Requests per chip is the least that a COG permits: for every file the
  runs of neighbouring blocks that the chip touches (a chip that the classification refuses needs no other band), plus one request
  for the index of each file, shared by the chips of the scene. Neighbours that share blocks come with fewer, so more than the
  ideal is possible; beside it stands the share of what the requests really sent permit.
* **bytes** = bytes of all answers ÷ compressed bytes of the blocks that each chip touches: the floor a COG permits, each chip
  counted by itself. Beside it, the same against the chips' uncompressed pixels.
* **odc-stac** loads with `odc.stac.load` (rasterio set up by `configure_rio(cloud_defaults=True)`) in two ways: place by place, all
  dates of a place in one call with `pool=connections`, as its manual shows; and chip by chip, as many calls at once as there
  are connections. The better one counts. Each run has addresses of its own, so that GDAL remembers nothing of them.

The figures of time are wall-clock: everything of ours from the opened catalog to the finished shard is in them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import odc.stac
import pystac
import rasterio
from affine import Affine
from cog_server import running
from odc.geo.geobox import GeoBox
from scipy.ndimage import zoom

from caco_assets.imagery.geometry.chip_grid import Grid
from caco_assets.imagery.ingest.fill_shard import Concurrency, ShardJob, fill_shard, journal_folder
from caco_assets.imagery.ingest.place import Place
from caco_assets.imagery.reading.scene_reader import Want

LATENCY_S = 0.05
SHARE_OF_IDEAL, MOST_BYTES, TIMES_ODC = 0.8, 1.5, 3.0
WAYS = ("place by place", "at once")
EPSG, LEFT, TOP, SIDE_M = 32631, 499_980.0, 4_700_040.0, 40_920
GSD = {"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B08": 10, "B11": 20, "B12": 20, "SCL": 20}
BANDS = tuple(band for band in GSD if band != "SCL")
SIZE = 264
CLOUDY = 3
"""Each so manieth scene is cloudy in its western half."""
MEMORY = Path("/dev/shm")
"""Scenes and shard lie there, where it exists: other users of the disk are not measured."""
NEIGHBOURS = 16
"""Bytes between blocks of a COG that follow one another: it says the size before each, and repeats its last bytes after it."""


@dataclass(frozen=True)
class Job:
    """The chips to read: places, and rows as in `scenes.parquet`."""

    places: list[Place]
    rows: list[dict]


def write_scene(folder: Path, seed: int, cloudy: bool) -> None:
    """One scene: smooth land with noise in each pixel, so that it packs about as well as real bands do."""
    dice = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for band, gsd in GSD.items():
        pixels = SIDE_M // gsd
        if band == "SCL":
            layer = np.full((pixels, pixels), 4, np.uint8)
            layer[dice.random(layer.shape) < 0.02] = 7
            layer[:, : pixels // 2] = 9 if cloudy else 5
        else:
            coarse = dice.integers(300, 3000, (pixels // 32 + 2, pixels // 32 + 2)).astype(np.float32)
            smooth = zoom(coarse, 32, order=1)[:pixels, :pixels]
            layer = (smooth + dice.normal(0, 40, smooth.shape)).clip(1, 20_000).astype(np.uint16)
        profile = {
            "driver": "COG",
            "compress": "deflate",
            "level": 6,
            "predictor": 2,
            "blocksize": 512,
            "overview_resampling": "nearest",
        }
        profile |= {"crs": f"EPSG:{EPSG}", "transform": Affine(gsd, 0, LEFT, 0, -gsd, TOP), "nodata": 0}
        with rasterio.open(folder / f"{band}.tif", "w", **profile, count=1, width=pixels, height=pixels, dtype=layer.dtype) as file:
            file.write(layer, 1)


def make_job(folder: Path, address: str, places: int, per_scene: int, dates: int) -> Job:
    """Places in groups of `per_scene`; each group has scenes of its own: names for the same two sets of files."""
    dice = np.random.default_rng(1)
    found, rows = [], []
    for number in range(places):
        x, y = (dice.integers(0, SIDE_M // 10 - SIZE, 2) * 10).tolist()
        found.append(Place(f"L{number:07d}", 3.0, 42.0, Grid(EPSG, LEFT + x, TOP - y, SIZE, 10.0)))
        for date in range(dates):
            group, period, season = number // per_scene, date % 2, date // 2
            item, cloudy = f"G{group:03d}D{date}", (group + date) % CLOUDY == 0
            home = folder / item
            if not home.exists():
                home.mkdir()
                for band in GSD:
                    os.link(folder / ("cloudy" if cloudy else "clear") / f"{band}.tif", home / f"{band}.tif")
            when = datetime(2022 + 4 * period, 1, 1, tzinfo=UTC) + timedelta(days=60 * season)
            rows.append(
                {
                    **{"location_id": found[-1].location_id, "shard": 0, "period": period, "season": season, "rank": 0},
                    **{"item_id": item, "datetime": when, "cloud_cover": 10.0, "epsg": EPSG, "processing_baseline": "05.11"},
                    **{"scale": 1e-4, "offset": -0.1, "nodata": 0.0, "radiometry": None, "status": "planned"},
                    "hrefs": json.dumps({band: f"{address}/{item}/{band}.tif" for band in GSD}),
                }
            )
    rows.sort(key=lambda row: (row["location_id"], row["period"], row["season"]))
    return Job(found, rows)


@dataclass(frozen=True)
class Floor:
    """What reading the chips of a job costs at least."""

    requests: float
    blocks: int
    """Compressed bytes."""
    pixels: int
    """Uncompressed bytes of the chips' own pixels."""


def floor_of(job: Job, folder: Path, per_scene: int) -> Floor:
    """Counted with GDAL's own account of where the blocks lie, chip by chip."""
    grids = {place.location_id: place.grid for place in job.places}
    requests, blocks, pixels, opened = 0.0, 0, 0, {}
    for row in job.rows:
        grid, home = grids[row["location_id"]], folder / row["item_id"]
        whole = ("SCL", *BANDS)
        for band in whole:
            path = (home / f"{band}.tif").resolve()
            file = opened.setdefault(path.stat().st_ino, None) or opened.setdefault(f"{path.stat().st_ino}", rasterio.open(path))
            spans, gsd = [], GSD[band]
            inside = [(grid.left - LEFT) / gsd, (TOP - grid.top) / gsd]
            first, last = ([int(value // 512) for value in edge] for edge in (inside, [v + SIZE * 10 / gsd - 1e-6 for v in inside]))
            for y in range(first[1], last[1] + 1):
                for x in range(first[0], last[0] + 1):
                    at, size = (int(file.get_tag_item(f"BLOCK_{what}_{x}_{y}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE"))
                    spans.append((at, at + size))
                    blocks += size
            spans.sort()
            requests += 1 + sum(after[0] - before[1] > NEIGHBOURS for before, after in pairwise(spans)) + 1 / per_scene
            pixels += (SIZE * 10 // gsd) ** 2 * (1 if band == "SCL" else 2)
            if band == "SCL" and refused(file, grid):
                break
    for file in opened.values():
        if file is not None:
            file.close()
    return Floor(requests, blocks, pixels)


def refused(scl: rasterio.DatasetReader, grid: Grid) -> bool:
    """Whether the classification makes the other bands needless."""
    layer = scl.read(1, window=rasterio.windows.from_bounds(*grid.bounds, scl.transform))
    return float((layer < 8).mean()) < 0.9


def ours(job: Job, scratch: Path, connections: int) -> tuple[float, float]:
    """Seconds and CPU-seconds of one shard."""
    target = scratch / "shard"
    for path in (target, journal_folder(target)):
        shutil.rmtree(path, ignore_errors=True)
    start, cpu = time.monotonic(), time.process_time()
    fill_shard(target, ShardJob(0, job.places, job.rows, Want(BANDS, 0.9, scratch), 1, Concurrency(2, connections)))
    return time.monotonic() - start, time.process_time() - cpu


def theirs(job: Job, connections: int, way: str, name: str) -> float:
    """Seconds of the same chips with odc-stac, under addresses that GDAL has not seen."""
    grids = {place.location_id: place.grid for place in job.places}
    resampling = {"*": "bilinear", "SCL": "nearest"}

    def load(rows: list[dict]) -> None:
        grid = grids[rows[0]["location_id"]]
        box = GeoBox((grid.size, grid.size), grid.transform, f"EPSG:{grid.epsg}")
        pool = None if way == "at once" else connections
        items = [item_of(row, f"~{name}{way[0]}") for row in rows]
        odc.stac.load(items, bands=[*BANDS, "SCL"], geobox=box, resampling=resampling, pool=pool)

    places = [[row for row in job.rows if row["location_id"] == place.location_id] for place in job.places]
    tasks = places if way == "place by place" else [[row] for row in job.rows]
    start = time.monotonic()
    with ThreadPoolExecutor(connections if way == "at once" else 1) as pool:
        list(pool.map(load, tasks))
    return time.monotonic() - start


def item_of(row: dict, alias: str) -> pystac.Item:
    """The item as a catalog has it, its files under another name."""
    item = pystac.Item(row["item_id"], None, None, row["datetime"], {"proj:code": f"EPSG:{EPSG}"})
    item.stac_extensions.append("https://stac-extensions.github.io/projection/v2.0.0/schema.json")
    for band, href in json.loads(row["hrefs"]).items():
        gsd = GSD[band]
        shape = {"proj:shape": [SIDE_M // gsd] * 2, "proj:transform": [gsd, 0, LEFT, 0, -gsd, TOP]}
        item.add_asset(
            band,
            pystac.Asset(
                href.replace(row["item_id"], f"{alias}/{row['item_id']}", 1),
                media_type=pystac.MediaType.COG,
                roles=["data"],
                extra_fields=shape,
            ),
        )
    return item


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer chips and repeats")
    parser.add_argument("--connections", type=int, default=4, help="so few that two cores are not what limits (default 4)")
    parser.add_argument("--per-scene", type=int, default=12, help="chips of one scene in the shard (default 12)")
    given = parser.parse_args()
    places, dates, repeats = (12, 6, 2) if given.quick else (36, 10, 3)
    odc.stac.configure_rio(cloud_defaults=True)
    scratch = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
    with scratch as name, running(Path(name), latency=LATENCY_S) as provider:
        folder = Path(name)
        write_scene(folder / "clear", 0, cloudy=False)
        write_scene(folder / "cloudy", 1, cloudy=True)
        job = make_job(folder, provider.address, places, given.per_scene, dates)
        few = {place.location_id for place in job.places[::4]}
        some = Job(
            [place for place in job.places if place.location_id in few], [row for row in job.rows if row["location_id"] in few]
        )
        floor, chips = floor_of(job, folder, given.per_scene), len(job.rows)
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {chips} chips of {places} places, ", end="")
        print(f"{given.per_scene} per scene, {given.connections} connections, {1e3 * LATENCY_S:.0f} ms")
        print(f"least: {floor.requests / chips:.1f} requests, {floor.blocks / chips / 1e6:.2f} MB of blocks per chip")
        # libraries load
        ours(Job(job.places[:1], job.rows[:2]), folder, given.connections)
        theirs(Job(job.places[:1], job.rows[:2]), given.connections, "place by place", "warm")
        provider.stats()
        shares, times, loads = [], [], []
        for repeat in range(repeats):
            seconds, cpu = ours(job, folder, given.connections)
            seen = provider.stats()
            ideal = given.connections / (LATENCY_S * floor.requests / chips)
            sent = given.connections / (LATENCY_S * seen["requests"] / chips)
            shares.append(chips / seconds / ideal)
            loads.append(seen["bytes"] / floor.blocks)
            print(
                f"ours {chips / seconds:.2f} chips/s, {shares[-1]:.0%} of the ideal {ideal:.2f}, "
                f"{chips / seconds / sent:.0%} of what its requests permit; "
                f"{seen['requests'] / chips:.1f} requests, {seen['bytes'] / chips / 1e6:.2f} MB, "
                f"{1e3 * cpu / chips:.0f} ms CPU per chip"
            )
            best = 0.0
            for way in WAYS:
                start = time.process_time()
                speed = len(some.rows) / theirs(some, given.connections, way, f"{repeat}")
                cpu, seen = time.process_time() - start, provider.stats()
                best, many = max(best, speed), len(some.rows)
                print(
                    f"  odc-stac {way}: {speed:.2f} chips/s; per chip {seen['requests'] / many:.1f} requests, "
                    f"{seen['bytes'] / many / 1e6:.2f} MB, {1e3 * cpu / many:.0f} ms CPU"
                )
            times.append(chips / seconds / best)
            print(f"  {times[-1]:.1f} times the best of them")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"bytes: {max(loads):.2f} of the blocks', {max(loads) * floor.blocks / floor.pixels:.2f} of the uncompressed pixels'; "
        f"most memory {peak:.0f} MiB (both sides)"
    )
    good = statistics.median(shares) >= SHARE_OF_IDEAL and max(loads) <= MOST_BYTES and statistics.median(times) >= TIMES_ODC
    line = {"benchmark": "ingest", "ratio": statistics.median(times), "low": min(times), "high": max(times), "bar": TIMES_ODC}
    line |= {"share_of_ideal": statistics.median(shares), "bytes_of_own": max(loads), "pass": bool(good)}
    print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
