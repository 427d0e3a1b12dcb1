"""A tiny twin of EuroSAT in the authors' layout, made of coloured noise."""

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from caco_assets.downstream.datasets.readers.eurosat import CLASSES

SPECTRUM = (1200, 900, 850, 700, 950, 1600, 1900, 1850, 750, 20, 1300, 650, 2000)
"""Of a patch of the multi-spectral twin, in the order of the files."""


def jpg(rng: np.random.Generator, label: int, side: int = 64) -> bytes:
    """A picture whose mean colour tells its class, roughly."""
    color = np.array([25 * label, 255 - 25 * label, 60 + 12 * label])
    pixels = np.clip(color + rng.normal(0, 25, (side, side, 3)), 0, 255).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def write_eurosat(folder: Path, per_class: int = 10, parts: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """`EuroSAT.zip` and its lists: six tenths train, two tenths val, two tenths test (or val takes all of the rest)."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    lists: dict[str, list[str]] = {part: [] for part in parts}
    with zipfile.ZipFile(folder / "EuroSAT.zip", "w") as archive:
        for label, name in enumerate(CLASSES):
            for number in range(1, per_class + 1):
                file = f"{name}_{number}.jpg"
                # a member by its name alone would carry the time of day, and the data another version
                archive.writestr(zipfile.ZipInfo(f"2750/{name}/{file}"), jpg(rng, label))
                share = (number - 1) / per_class
                part = parts[0] if share < 0.6 else parts[1] if share < 0.8 else parts[-1]
                lists[part].append(file)
    for part, files in lists.items():
        (folder / f"split-{part}.txt").write_text("".join(f"{file}\n" for file in files))
    return folder / "EuroSAT.zip"


@pytest.fixture
def eurosat(tmp_path: Path) -> Path:
    return write_eurosat(tmp_path / "eurosat")


@pytest.fixture
def eurosat_ms(tmp_path: Path) -> Path:
    """Five patches a class, each a spectrum of plants (B10 is dark) that is brighter in each class; declared as a part."""
    rng = np.random.default_rng(0)
    root = tmp_path / "eurosat_ms"
    for label, name in enumerate(CLASSES):
        folder = root / "ds" / "tif" / name
        folder.mkdir(parents=True)
        for number in range(1, 6):
            pixels = np.array(SPECTRUM) * (1 + label / 5) + rng.integers(0, 3, (64, 64, 13))
            tifffile.imwrite(folder / f"{name}_{number}.tif", pixels.astype(np.uint16), planarconfig="contig")
    (root / "subset.json").write_text('{"images": 50, "note": "spectra for a test"}')
    return root


@pytest.fixture
def spectrum() -> tuple[int, ...]:
    return SPECTRUM


@pytest.fixture
def make_jpg():
    return jpg


@pytest.fixture(scope="session")
def make_eurosat():
    return write_eurosat
