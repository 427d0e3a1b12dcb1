"""Imports a set in the published layout: its places and shards, and what could not be used."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import batched
from pathlib import Path

from caco_assets.core.products import Facts, Product, produce
from caco_assets.core.progress import Progress
from caco_assets.core.stage_versions import stage_version
from caco_assets.imagery.archive.manifest import stored_at
from caco_assets.imagery.archive.shard import INDEX, QUARANTINE, member_name, shard_name, write_index, write_quarantine, write_tar
from caco_assets.imagery.archive.tar_store import TAR, send_tar
from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.seco_layout.import_place import Row, Rules, place_of, take
from caco_assets.imagery.seco_layout.layout import PlaceFolder, list_dates, list_places
from caco_assets.imagery.seco_layout.locations import write_places
from caco_assets.imagery.seco_layout.pixels import read_position
from caco_assets.settings import Settings


def import_published(settings: Settings, root: Path) -> list[Product]:
    """Make `locations` and the archive's shards of a set in the published layout, in this order.

    Shards whose files have not changed are kept, so that an interrupted import resumes. `collect` closes the archive.

    Args:
        settings: a profile with the source `published`.
        root: folder of the place folders.

    Raises:
        UserError: the profile's imagery comes from elsewhere, or the set has no place that can be used.
    """
    rules, places = Rules.of(settings), list_places(root)
    paths, per_shard = settings.paths, settings.sampling.places_per_shard
    shards: dict[int, list[PlaceFolder]] = {number: [] for number in range(places[-1].number // per_shard + 1)}
    for place in places:
        shards[place.number // per_shard].append(place)
    # a value other than 0 once emptied a pixel only where all bands had it; other archives stay valid
    gaps = {} if rules.numbers.nodata in (None, 0) else {"gaps": "a pixel without data in one band has none in any"}
    inputs = {number: {"files": _listing(members), "rules": asdict(rules), **gaps} for number, members in shards.items()}
    products = [
        produce(
            "locations",
            paths.locations,
            records=paths.records,
            recipe=stage_version("locations"),
            inputs={"published": inputs, "places_per_shard": per_shard},
            make=lambda path: write_places(path, _positions(places, rules, settings.imagery.workers), per_shard, len(shards)),
        )
    ]
    for number, members in shards.items():
        products.append(
            produce(
                f"archive/{shard_name(number)}",
                paths.archive / shard_name(number),
                records=paths.records,
                recipe=stage_version("archive"),
                inputs={"published": inputs[number]},
                make=lambda path, number=number, members=members: fill_shard(
                    path, number, members, rules, settings.imagery.workers, stored_at(settings, number)
                ),
            )
        )
    return products


def fill_shard(target: Path, shard: int, places: list[PlaceFolder], rules: Rules, workers: int, root: str | None = None) -> Facts:
    """Write `chips.tar`, `chips.parquet` and `quarantine.parquet` of one shard; the same files give the same bytes.

    With `root`, the address of the shard's folder in an object store, the tar is moved there when it is complete.

    Returns:
        The facts that `imagery.ingest.fill_shard` returns.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    rows: list[Row] = []
    refused: list[Row] = []
    complete = 0

    def members() -> Iterator[tuple[str, bytes]]:
        nonlocal complete
        progress = Progress(f"shard {shard:04d}", len(places), "places")
        with ThreadPoolExecutor(workers) as pool:
            # a few places at a time: memory does not grow with the shard
            for some in batched(places, 2 * workers):
                for taken in pool.map(lambda place: take(place, rules), some):
                    refused.extend({**row, "shard": shard} for row in taken.refused)
                    complete += bool(taken.chips)
                    for row, data in taken.chips:
                        rows.append(row)
                        yield member_name(row["location_id"], row["period"], row["season"]), data
                    progress.advance()
        progress.close()

    ranges = write_tar(target / TAR, members())
    indexed = [
        {**row, "offset": offset, "length": length, "sha256": sha256}
        for row, (offset, length, sha256) in zip(rows, ranges, strict=True)
    ]
    write_index(target / INDEX, indexed, rules.bands)
    write_quarantine(target / QUARANTINE, refused)
    size = (target / TAR).stat().st_size
    if root is not None:
        send_tar(target, root)
    mean = sum(row["clear_fraction"] for row in rows) / len(rows) if rows else 0.0
    reasons = dict(sorted(Counter(row["reason"] for row in refused).items()))
    whole = {"bytes": size, "clear_fraction": round(mean, 4)}
    return {"places": len(places), "places_complete": complete, "chips": len(rows), "widened": 0, **whole, "refused": reasons}


def _positions(places: list[PlaceFolder], rules: Rules, workers: int) -> Iterator[tuple[PlaceFolder, float, float]]:
    """Number, lon and lat of every place that has one; opens one file of each."""

    def find(place: PlaceFolder) -> tuple[float, float] | None:
        for date in reversed(list_dates(place)[0]):
            try:
                return place_of(date, read_position(date, rules.bands, rules.size, rules.resolution))
            except UnreadableError:
                continue  # the shard's quarantine has the reason
        return None

    progress = Progress("places", len(places), "places")
    with ThreadPoolExecutor(workers) as pool:
        for some in batched(places, 64):
            for place, found in zip(some, pool.map(find, some), strict=True):
                progress.advance()
                if found is not None:
                    yield place, *found
    progress.close()


def _listing(places: list[PlaceFolder]) -> list[tuple[str, int, int]]:
    """Name, size and time of every file below the places."""
    files = sorted(path for place in places for path in place.path.glob("*/*") if path.is_file())
    return [("/".join(path.parts[-3:]), stat.st_size, stat.st_mtime_ns) for path, stat in ((path, path.stat()) for path in files)]
