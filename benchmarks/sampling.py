"""How many places per second: blocks and search trees, against one candidate at a time; and a million of them in a minute and 2 GB.

The plain way (as the published SeCo samplers do it) draws one candidate after the other: a city at random, a Gaussian step, the
land mask asked for one point, the exclusion zones asked for one chip, and the great-circle distance to every place accepted so
far. Both sides draw the same number of places under the same settings (10 000 cities, 50 km, 2.64 km apart, all known exclusion
zones), interleaved in one process; the figure is the ratio of CPU times. The plain way compares with all places, so its cost per
place and with it the ratio grow with their number: the ratio that counts is that of the largest number shown (20 000; quick:
8 000), the smaller ones are printed beside it.

The million is one run of the stage in a process of its own, bound to one core: seconds from its start to the written
`locations.parquet` (imports and the loading of the land mask included), and the peak of its resident memory. The bar is on the
wall clock of the fastest of three runs: what the machine can do, other programs or not; the CPU seconds are printed beside it.
`pass` holds the bar of the ratio and both bars of the million.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from caco_assets.sampling.acceptance import Acceptance, acceptance_of
from caco_assets.sampling.exclusion import KM_PER_DEGREE_LAT, KM_PER_DEGREE_LON, SLACK
from caco_assets.sampling.gazetteer import Cities, cities_of
from caco_assets.sampling.sampler import draw
from caco_assets.settings import Settings, load_settings

BAR = 10.0
OURS_TIMES = 4
"""Our side is so short that its mean over some seeds is taken."""
MILLION, MOST_SECONDS, MOST_GB = 1_000_000, 60.0, 2.0
PROFILE = "sampling: {}\n"
"""The defaults of the settings: strategy caco, all exclusion zones, chips of 2.64 km."""


def plain(
    settings: Settings, cities: Cities, acceptance: Acceptance, places: int, seed: int
) -> tuple[int, list[tuple[float, float]]]:
    """One candidate at a time; returns how many were drawn, and the places."""
    from global_land_mask import globe

    rng, sampling = np.random.default_rng(seed), settings.sampling
    zones = [(shape, shape.bounds) for shape in acceptance.zones.shapes]
    half = SLACK * acceptance.zones.chip_km / 2
    kept: list[tuple[float, float]] = []
    radians = np.empty((2, places))
    drawn = 0
    while len(kept) < places:
        drawn += 1
        city = int(rng.integers(len(cities)))
        step = np.radians(rng.normal(0, sampling.sigma_km, 2) / KM_PER_DEGREE_LAT)
        lat = float(cities.lat[city] + np.degrees(step[0]))
        lon = float(cities.lon[city] + np.degrees(step[1]) / math.cos(math.radians(cities.lat[city])))
        lon = (lon + 180) % 360 - 180
        if not globe.is_land(lat, lon):
            continue
        high, wide = half / KM_PER_DEGREE_LAT, half / (KM_PER_DEGREE_LON * math.cos(math.radians(lat)))
        chip = shapely.box(lon - wide, lat - high, lon + wide, lat + high)
        if any(shape.intersects(chip) for shape, _ in zones):
            continue
        phi, lam = math.radians(lat), math.radians(lon)
        others = radians[:, : len(kept)]
        half_chord = np.sin((others[1] - phi) / 2) ** 2 + math.cos(phi) * np.cos(others[1]) * np.sin((others[0] - lam) / 2) ** 2
        if (2 * 6371.0088 * np.arcsin(np.sqrt(half_chord)) < sampling.min_distance_km).any():
            continue
        radians[:, len(kept)] = lam, phi
        kept.append((lon, lat))
    return drawn, kept


def compare(settings: Settings, places: int, repeats: int) -> list[float]:
    """Ratios of CPU time, the plain way over ours, one for each interleaved repeat."""
    cities, acceptance = cities_of(settings), acceptance_of(settings)
    sampling = settings.sampling.model_copy(update={"places": places})
    draw(sampling, 0, cities, acceptance)  # loads the land mask
    ratios = []
    for repeat in range(repeats):
        start = time.process_time()
        drawn, _ = plain(settings, cities, acceptance, places, repeat)
        theirs = time.process_time() - start
        start = time.process_time()
        ours_drawn = sum(draw(sampling, seed, cities, acceptance).counts["drawn"] for seed in range(OURS_TIMES))
        ours = (time.process_time() - start) / OURS_TIMES
        ratios.append(theirs / ours)
        print(
            f"{places:6d} places  one at a time {theirs:6.2f} s ({drawn} candidates)  ours {1e3 * ours:5.0f} ms "
            f"({ours_drawn // OURS_TIMES} candidates)  ratio {ratios[-1]:5.1f}"
        )
    return ratios


def million(folder: Path, places: int) -> dict[str, Any]:
    """`cpu_seconds`, `wall_seconds`, `peak_gb` and `facts` of one run of the stage in a process of its own on one core."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(folder), "--places", str(places)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    return {**json.loads(done.stdout.splitlines()[-1]), "wall_seconds": time.monotonic() - start}


def child(folder: Path, places: int) -> None:
    from caco_assets.sampling.stage import sample

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    product = sample(profile(folder, places))
    used = resource.getrusage(resource.RUSAGE_SELF)
    # ru_maxrss is in kilobytes on Linux
    report = {"cpu_seconds": used.ru_utime + used.ru_stime, "peak_gb": used.ru_maxrss * 1024 / 1e9, "facts": product.facts}
    print(json.dumps(report))


def profile(folder: Path, places: int) -> Settings:
    path = folder / "million.yaml"
    path.write_text(PROFILE)
    return load_settings(str(path), home=folder, sampling={"places": places})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer places and repeats for the ratio; the million is run once")
    parser.add_argument("--places", type=int, default=MILLION, help="size of the large run")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        child(options.child, options.places)
        return 0
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        runs = [million(Path(tempfile.mkdtemp(dir=scratch)), options.places) for _ in range(1 if options.quick else 3)]
        for run in runs:
            seconds = f"{run['cpu_seconds']:.1f} s of CPU ({run['wall_seconds']:.1f} s of the wall clock)"
            print(f"{run['facts']['places']} places: {seconds}, peak {run['peak_gb']:.2f} GB; {run['facts']}")
        settings, ratios = profile(Path(scratch), options.places), []
        for places in (1000, 8000) if options.quick else (1000, 5000, 20_000):
            ratios = compare(settings, places, 3 if options.quick else 5)
    seconds, peak = min(run["wall_seconds"] for run in runs), max(run["peak_gb"] for run in runs)
    ratio = statistics.median(ratios)
    passed = ratio >= BAR and seconds < MOST_SECONDS and peak < MOST_GB
    line = {"benchmark": "sampling", "ratio": ratio, "low": min(ratios), "high": max(ratios), "bar": BAR, "pass": passed}
    line |= {"seconds": seconds, "seconds_bar": MOST_SECONDS, "peak_gb": peak, "gb_bar": MOST_GB}
    print(json.dumps({key: round(value, 2) if isinstance(value, float) else value for key, value in line.items()}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
