"""Packs of noise through the pack's own writer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from caco_assets.pretraining.pack.build import build


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

    sizes = {"chip_size": side, "seasons": dates, "min_seasons": 1, "total": 2 * places * dates - len(missing)}
    build(chips(), folder, bands=bands, archive_bands=bands, stretch=stretch, **sizes)
    return folder


@pytest.fixture
def make_pack() -> Callable[..., Path]:
    return write_pack
