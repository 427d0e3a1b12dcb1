"""Scenes for twins with a class for each pixel: what lies where is known, so that their masks are true.

The embedded Earth is drawn at 10 m. Twins of finer products show it enlarged: their pixels are smaller, their ground is not finer.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from caco_assets.synthetic.earth import noise, terrain, weather
from caco_assets.synthetic.earth.change import KINDS, Event
from caco_assets.synthetic.earth.earth import GSD, View, Window, enlarged
from caco_assets.synthetic.earth.noise import Frame
from caco_assets.synthetic.earth.region import INDUSTRIAL, RESIDENTIAL, Region, region
from caco_assets.synthetic.earth.spectra import BANDS

BUILT = (RESIDENTIAL, INDUSTRIAL)
GROWTH = tuple(kind.name for kind in KINDS if kind.becomes in BUILT and kind.bare is None)
WHITE = 0.275
"""Reflectance that a picture shows as white."""
_REACH_M = 1200.0
_ZIP_DATE = (2020, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Place:
    """A window of a town of one twin."""

    here: Region
    window: Window
    events: tuple[Event, ...]
    rows: int
    """Pixels of 10 m that are shown, from the upper left corner."""
    cols: int

    def view(self) -> View:
        """What does not depend on the date."""
        return View(self.here, self.window, self.events)


def place(
    seed: int,
    twin: str,
    number: int,
    rows: int,
    cols: int,
    happens: tuple[datetime, datetime] | None = None,
    kinds: Sequence[str] = (),
    reach: float = _REACH_M,
) -> Place:
    """A place of its own: its town is in no gazetteer, no catalog and no other twin.

    Args:
        seed: the Earth's seed.
        twin: name of the twin.
        number: of the place.
        rows: pixels of 10 m.
        cols: pixels of 10 m.
        happens: when its change falls; None: nothing changes.
        kinds: names of the events that may happen; empty: any.
        reach: how far from the town's centre its middle may lie, metres.
    """
    draw = noise.generator("dense twin", twin, seed, number)
    lon, lat = round(-9.0 + 38.0 * float(draw.random()), 4), round(36.0 + 26.0 * float(draw.random()), 4)
    here = region(seed, f"*{twin}*/{number}", lon, lat)
    width, height = (-(-side // 6) * 6 for side in (cols, rows))
    dx, dy = (reach * (2.0 * float(draw.random()) - 1.0) for _ in range(2))
    west = 60.0 * round((dx - 5.0 * width) / 60.0)
    north = 60.0 * round((dy + 5.0 * height) / 60.0)
    window = Window(here.epsg, here.origin[0] + west, here.origin[1] + north, width, height)
    events = () if happens is None else _events(here, draw, (west, -north), (rows, cols), happens, kinds)
    return Place(here, window, events, rows, cols)


def _events(
    here: Region,
    draw: np.random.Generator,
    corner: tuple[float, float],
    shape: tuple[int, int],
    happens: tuple[datetime, datetime],
    kinds: Sequence[str],
) -> tuple[Event, ...]:
    """One or two patches (in a strip, for each square of it), 35 % of the window at most, where the land lets them."""
    rows, cols = shape
    col, row = (round(metres / noise.PIXEL) for metres in corner)
    frame = Frame(np.arange(col, col + cols), np.arange(row, row + rows))
    cover = terrain.survey(here, frame).cover
    wanted = kinds or tuple(kind.name for kind in KINDS)
    chosen: list[Event] = []
    share = 0.0
    most = 2 * max(1, round(max(rows, cols) / min(rows, cols)))
    for _ in range(12 * most):
        radius = 10.0 * min(rows, cols) * (0.1 + 0.14 * float(draw.random()))
        x, y = corner[0] + 10.0 * cols * float(draw.random()), corner[1] + 10.0 * rows * float(draw.random())
        when = happens[0] + timedelta(days=float(int((happens[1] - happens[0]).days * draw.random())))
        name = wanted[int(draw.integers(len(wanted)))]
        event = Event(name, round(x, 1), round(y, 1), round(radius, 1), when, int(draw.integers(2**32)))
        found = float(event.mask(frame, cover).mean())
        if found > 0.04 / most and share + found < 0.35:
            chosen.append(event)
            share += found
        if len(chosen) == most:
            break
    return tuple(chosen)


def reflectance(where: Place, view: View, when: datetime, bands: Sequence[str]) -> np.ndarray:
    """Cloudless surface reflectance float32 (bands, rows, cols) at 10 m."""
    look = replace(weather.acquisition(where.here, when), cloud=0.0, haze=0.0, swath=None)
    image = view.render(look)
    layers = [enlarged(image.bands[band], GSD[band] // 10) for band in bands]
    return np.stack([layer[: where.rows, : where.cols] for layer in layers]).astype(np.float32)


def through_air(surface: np.ndarray, bands: Sequence[str], air: float) -> np.ndarray:
    """What a satellite sees above the air (level 1C): the path's own light on a dimmed ground."""
    path = np.float32(air) * np.array([weather.PATH[BANDS.index(band)] for band in bands], np.float32)[:, None, None]
    return surface * (np.float32(1.0) - np.float32(1.3) * path) + path


def cover(where: Place, view: View, when: datetime) -> np.ndarray:
    """Class codes of `region.CLASSES` on a date, uint8 (rows, cols)."""
    return view.cover(when)[: where.rows, : where.cols].astype(np.uint8)


def picture(surface: np.ndarray, times: int, key: int, white: float = WHITE) -> np.ndarray:
    """uint8 (C, rows · times, cols · times) of reflectance, enlarged, with a grain of ±2 so that it is no mosaic of squares."""
    large = enlarged(surface, times)
    grain = noise.generator("dense grain", key).integers(-2, 3, large.shape)
    return np.clip(np.floor(large * np.float32(255.0 / white) + np.float32(0.5)) + grain, 0, 255).astype(np.uint8)


def recoded(codes: np.ndarray, table: Mapping[int, int], other: int) -> np.ndarray:
    """uint8 of codes by a table; `other` where it has none."""
    look = np.full(256, other, np.uint8)
    for code, value in table.items():
        look[code] = value
    return look[codes]


def png(pixels: np.ndarray) -> bytes:
    """Of (3, H, W) or (H, W) uint8."""
    from PIL import Image

    stream = BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels).save(stream, "PNG")
    return stream.getvalue()


def tif(pixels: np.ndarray, where: Place | None = None, times: int = 1) -> bytes:
    """GeoTIFF of (C, H, W), at its place on the ground where that is given."""
    from rasterio.io import MemoryFile
    from rasterio.transform import from_origin

    count, height, width = pixels.shape
    # rasterio warns when it opens a file without a place on the ground
    ground: dict[str, Any] = {"transform": from_origin(0, height, 1, 1)}
    if where is not None:
        step = 10.0 / times
        ground = {"crs": f"EPSG:{where.window.epsg}", "transform": from_origin(where.window.west, where.window.north, step, step)}
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=width, height=height, count=count, dtype=pixels.dtype, interleave="pixel", **ground
        ) as out:
            out.write(pixels)
        return memory.read()


class ZipWriter:
    """Archives with the same bytes each time; a context manager, which finishes them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._open: dict[str, zipfile.ZipFile] = {}

    def __call__(self, archive: str, member: str, data: bytes | str) -> None:
        """Add one member."""
        if archive not in self._open:
            self._open[archive] = zipfile.ZipFile(self._folder / archive, "w", zipfile.ZIP_STORED)
        self._open[archive].writestr(zipfile.ZipInfo(member, _ZIP_DATE), data)

    def __enter__(self) -> ZipWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for archive in self._open.values():
            archive.close()


Write = Callable[[str, str, bytes | str], None]
"""Archive, member, bytes."""


def scaled(published: int, count: int, least: int) -> int:
    """How many images a twin has: `published` where EuroSAT's twin has 100 in each class, fewer below, never under `least`."""
    return max(least, min(published, round(published * count / 100)))
