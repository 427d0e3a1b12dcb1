"""Small products that tests of several rooms read: an archive of two shards, and packs of noise through the pack's own writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class NoisyChip:
    location_id: str
    period: int
    season: int
    lon: float
    lat: float
    pixels: np.ndarray


def write_pack(
    folder: Path,
    places: int = 12,
    dates: int = 3,
    side: int = 40,
    bands: tuple[str, ...] = ("B04", "B03", "B02"),
    stretch: str = "seco",
    missing: tuple[tuple[int, int, int], ...] = (),
) -> Path:
    """A pack of noise; `missing` are (place, period, season) without a chip."""

    def chips():
        for place, period, season in np.ndindex(places, 2, dates):
            if (place, period, season) not in missing:
                generator = np.random.default_rng((place, period, season))
                pixels = generator.integers(1, 4000, (len(bands), side, side), dtype=np.uint16)
                yield NoisyChip(f"L{place:07d}", period, season, 0.0, 0.0, pixels)

    from caco_assets.pretraining.pack.build import build

    sizes = {"chip_size": side, "seasons": dates, "min_seasons": 1, "total": 2 * places * dates - len(missing)}
    build(chips(), folder, bands=bands, archive_bands=bands, stretch=stretch, **sizes)
    return folder


@pytest.fixture
def make_pack() -> Callable[..., Path]:
    return write_pack
