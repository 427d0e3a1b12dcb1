"""What it costs to make shards through an engine: one process against Ray's tasks, and one worker against two.

A cluster of two nodes of one core each on this machine; the embedded Earth as a catalog of COGs on disk, so that a shard is
computing and nothing of it is waiting. All sides make the same shards again and again, in turns:

* **plain**: `ingest_shard` in this process, one shard after the other;
* **1 worker**: the same shards as tasks of Ray (`imagery.launcher: ray`), while somebody else holds the other node's core;
* **2 workers**: the same on both nodes;
* **no shard**: a backfill of nothing, which is what one pays for itself, however many shards it has.

**Engine per shard** = seconds that a shard takes longer through Ray than plain, less its part of a backfill of nothing: the task's
way there and back, the reports of its progress, the answer, and what Ray's own processes take from a core that they share. What a
worker pays once in its life, its start and imports, is shown beside it; so is CPU time, of this process and of all processes of the
cluster: two nodes' daemons take theirs whether there is work or not, on a cluster each on its own machine.

ratio = plain over 1 worker, in seconds of the wall clock, in turns on the same shards. The bar: Ray costs less than 5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from caco_assets.imagery.ingest.ray import ingest_on_ray
from caco_assets.imagery.on_record import ingest_shard, plan
from caco_assets.sampling.stage import sample
from caco_assets.settings import Settings, load_settings
from caco_assets.synthetic.stage import build_catalog

BAR = 0.95
_REST_S = 5.0
"""The cluster is watched doing nothing for so long."""
NODES = Path(__file__).resolve().parents[1] / "tests" / "deploy" / "two_nodes.py"
CHIP = {"bands": ["B02", "B03", "B04", "B08", "B11", "B12"], "chip_size": 264, "workers": 1}
"""A chip as the large profiles have it; one thread, so that a worker is a core."""


def prepared(home: Path, places: int, shards: int, scenes: int) -> Settings:
    """A home whose shards can be made."""
    settings = load_settings(
        "embedded",
        home=home,
        sampling={"places": places * shards, "places_per_shard": places, "cities": shards},
        imagery={**CHIP, "source": {"kind": "synthetic", "scenes_per_season": scenes, "calendar": "2026-10"}},
    )
    for stage in (sample, build_catalog, plan):
        stage(settings)
    return settings


def twin(settings: Settings, name: str) -> Settings:
    """The same in a home of its own."""
    home = Path(shutil.copytree(settings.home, settings.home.with_name(name), symlinks=True, copy_function=os.link))
    return load_settings("embedded", home=home, sampling=settings.sampling.model_dump(), imagery=settings.imagery.model_dump())


def forget(settings: Settings) -> None:
    """As if no shard had been made."""
    for folder in (settings.paths.archive, settings.paths.records / "archive"):
        shutil.rmtree(folder, ignore_errors=True)


def plain(settings: Settings, shards: Sequence[int]) -> None:
    """One after the other, here."""
    for shard in shards:
        ingest_shard(settings, shard)


def through_ray(settings: Settings, shards: Sequence[int]) -> None:
    """As many at once as there are free cores."""
    list(ingest_on_ray(settings, shards, ingest_shard))


@contextmanager
def a_core_is_taken(taken: bool) -> Iterator[None]:
    """One node has no core to give while the block runs."""
    import ray

    if not taken:
        yield
        return
    holder: Any = ray.remote(_Holder).options(num_cpus=1).remote()
    ray.get(holder.here.remote())
    yield
    ray.kill(holder)


class _Holder:
    def here(self) -> bool:
        return True


class Clock:
    """Wall clock, and the CPU time of this process and of the cluster with all its children."""

    def __init__(self, cluster: int) -> None:
        self._cluster = psutil.Process(cluster)
        self._gone = 0.0
        self._last: dict[int, float] = {}

    def now(self) -> tuple[float, float, float]:
        """Seconds: wall, this process, cluster."""
        here = sum(psutil.Process().cpu_times()[:2])
        seen: dict[int, float] = {}
        for process in [self._cluster, *self._cluster.children(recursive=True)]:
            try:
                seen[process.pid] = sum(process.cpu_times()[:2])
            except psutil.NoSuchProcess:
                continue
        self._gone += sum(used for pid, used in self._last.items() if pid not in seen)
        self._last = seen
        return time.monotonic(), here, self._gone + sum(seen.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller shards and fewer repeats: under a minute on a quiet machine")
    parser.add_argument("--places", type=int, help="of a shard (default 64; with --quick 24)")
    parser.add_argument("--repeats", type=int, help="default 3; with --quick 1")
    given = parser.parse_args()
    places, repeats = given.places or (24 if given.quick else 64), given.repeats or (1 if given.quick else 3)
    shards = range(2 if given.quick else 4)
    with tempfile.TemporaryDirectory() as folder:
        base = prepared(Path(folder) / "plain", places, len(shards), 2)
        other = twin(base, "ray")
        sides = {"plain": (plain, base), "1 worker": (through_ray, other), "2 workers": (through_ray, other)}
        nodes = subprocess.Popen([sys.executable, str(NODES), "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            return measure(nodes, sides, shards, repeats, places)
        finally:
            nodes.communicate(timeout=120)


def measure(nodes: subprocess.Popen[str], sides: dict, shards: Sequence[int], repeats: int, places: int) -> int:
    import ray

    assert nodes.stdout
    address = nodes.stdout.readline().strip()
    assert address, "the cluster did not start"
    ray.init(address=address, log_to_driver=False)
    clock = Clock(nodes.pid)
    # imports, compiled kernels: here, and in a worker of each node
    for name in ("plain", "2 workers"):
        make, settings = sides[name]
        start = clock.now()
        make(settings, shards)
        print(f"first time, {name}: {clock.now()[0] - start[0]:.1f} s for {len(shards)} shards, imports included")
    walls: dict[str, list[float]] = {name: [] for name in sides}
    work: dict[str, list[float]] = {name: [] for name in sides}
    alone: list[float] = []
    idle: list[float] = []
    for _ in range(repeats):
        before = clock.now()
        through_ray(sides["1 worker"][1], [])
        rest = clock.now()
        alone.append((rest[0] - before[0]) / len(shards))
        time.sleep(_REST_S)
        idle.append((clock.now()[2] - rest[2]) / _REST_S)
        for name, (make, settings) in sides.items():
            forget(settings)
            with a_core_is_taken(name == "1 worker"):
                before = clock.now()
                make(settings, shards)
                now = clock.now()
            wall, here, there = (after - first for after, first in zip(now, before, strict=True))
            walls[name].append(wall / len(shards))
            work[name].append((here + (0 if name == "plain" else there)) / len(shards))
        print("  ".join(f"{name}: {walls[name][-1]:.2f} s, {work[name][-1]:.2f} s CPU a shard" for name in sides), flush=True)
    ray.shutdown()
    through = [one - less for one, less in zip(walls["1 worker"], alone, strict=True)]
    ratios = [one / other for one, other in zip(walls["plain"], through, strict=True)]
    engine = [other - one for one, other in zip(walls["plain"], through, strict=True)]
    facts = sides["plain"][1].paths.records / "archive" / "shard=0000.json"
    chips = json.loads(facts.read_text())["facts"]["chips"]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; a shard: {places} places, {chips} chips")
    for name, seconds in walls.items():
        each = 60 / statistics.median(seconds)
        print(f"{name}: {each:.2f} shards a minute ({60 / max(seconds):.2f} to {60 / min(seconds):.2f})")
    both = [one / two for one, two in zip(walls["1 worker"], walls["2 workers"], strict=True)]
    print(f"2 workers over 1: {statistics.median(both):.2f} ({min(both):.2f} to {max(both):.2f})")
    print(f"engine per shard: {statistics.median(engine):.2f} s ({min(engine):.2f} to {max(engine):.2f})")
    print(f"a backfill for itself: {statistics.median(alone) * len(shards):.2f} s")
    print(f"two idle nodes: {statistics.median(idle):.0%} of a core")
    ratio = statistics.median(ratios)
    line = {"benchmark": "scale_out", "ratio": ratio, "low": min(ratios), "high": max(ratios), "bar": BAR, "pass": ratio >= BAR}
    print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}))
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
