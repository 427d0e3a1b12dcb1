"""A small archive of two shards."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def small_archive(tmp_path: Path) -> Path:
    """Two shards of one place each with two dates per period: 3 bands of 32 px, `chip_pixels(10 * shard + number)`."""
    from caco_assets.imagery.archive.chip import encode
    from caco_assets.imagery.archive.shard import INDEX, QUARANTINE, TAR, member_name, write_index, write_quarantine, write_tar
    from caco_assets.imagery.geometry.chip_grid import chip_footprints, chip_grids

    bands, (grid,) = ("B02", "B03", "B04"), chip_grids(np.array([2.8]), np.array([42.3]), 32, 10.0)
    for shard, place in enumerate(("L0000003", "L0000012")):
        folder = tmp_path / "archive" / f"shard={shard:04d}"
        folder.mkdir(parents=True)
        keys = [(period, season) for period in (0, 1) for season in (0, 2)]
        data = [encode(chip_pixels(10 * shard + number), bands, grid) for number in range(4)]
        ranges = write_tar(folder / TAR, [(member_name(place, *key), one) for key, one in zip(keys, data, strict=True)])
        rows = [
            {
                "location_id": place, "period": key[0], "season": key[1], "item_id": f"S2_{number}", "epsg": grid.epsg,
                "datetime": datetime(2018 + 4 * key[0], 1 + number, 1, 10, 30, 15, 250_000, tzinfo=UTC),
                "clear_fraction": 0.95, "cloud_cover": None if number else 3.0, "status": "planned",
                "offset": found[0], "length": found[1], "sha256": found[2], "lon": 2.8, "lat": 42.3,
                "geometry": chip_footprints([grid])[0],
            }
            for number, (key, found) in enumerate(zip(keys, ranges, strict=True))
        ]  # fmt: skip
        write_index(folder / INDEX, rows, bands)
        write_quarantine(folder / QUARANTINE, [])
    return tmp_path / "archive"


def chip_pixels(number: int) -> np.ndarray:
    """Pixels (3, 32, 32) of a chip of `small_archive`."""
    return np.random.default_rng(number).integers(0, 65_536, (3, 32, 32), dtype=np.uint16)


@pytest.fixture
def pixels_of():
    """`chip_pixels`, for tests."""
    return chip_pixels


@pytest.fixture
def stac_items():
    """Reads the chips of a shard as STAC items (JSON); an item that names a collection must link to it: here the table itself."""
    from stac_geoparquet.arrow import stac_table_to_items

    from caco_assets.imagery.archive.shard import INDEX, read_index

    link = {"rel": "collection", "href": INDEX, "type": "application/vnd.apache.parquet"}
    return lambda shard: [{**item, "links": [link]} for item in stac_table_to_items(read_index(shard))]
