"""A pack to train on, and the GPU; without one every test here is skipped and says so."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from caco_assets.pretraining.pack.build import build

BANDS = ("B04", "B03", "B02")
PLACES, SEASONS, SIDE = 24, 4, 64


@dataclass(frozen=True)
class Chip:
    location_id: str
    period: int
    season: int
    lon: float
    lat: float
    pixels: np.ndarray


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    """The current CUDA device."""
    if not torch.cuda.is_available():
        pytest.skip(f"no GPU here: torch {torch.__version__} finds no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(scope="session")
def pack(cuda: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Places with a texture of their own, seasons with a brightness, every third place with another texture years later."""
    folder = tmp_path_factory.mktemp("gpu") / "pack"
    chips = [chip(*date) for date in np.ndindex(PLACES, 2, SEASONS)]
    arguments = {"bands": BANDS, "archive_bands": BANDS, "stretch": "reflectance", "chip_size": SIDE, "seasons": SEASONS}
    build(chips, folder, **arguments, min_seasons=3, total=len(chips))
    return folder


def chip(place: int, period: int, season: int) -> Chip:
    changed = period == 1 and place % 3 == 0
    coarse = np.random.default_rng((place, changed)).integers(0, 8_000, (3, 8, 8))
    texture = np.kron(coarse, np.ones((SIDE // 8, SIDE // 8), int))
    noise = np.random.default_rng((place, period, season)).integers(0, 400, texture.shape)
    pixels = np.clip(texture * (0.8 + 0.1 * season) + noise, 0, 65_535).astype(np.uint16)
    return Chip(f"L{place:07d}", period, season, 10.0 + place, 0.1 * place, pixels)
