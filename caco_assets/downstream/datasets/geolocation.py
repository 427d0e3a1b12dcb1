"""Reads where the images of a data set lie on the Earth from GeoTIFF tags, without reading pixels and without rasterio.

The table holds only data sets whose files carry coordinates. EuroSAT RGB and AID images have none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from caco_assets.downstream.datasets.archives import open_archives
from caco_assets.downstream.datasets.names import find_file, fold
from caco_assets.downstream.datasets.readers.bigearthnet import FOLDERS
from caco_assets.downstream.datasets.readers.bigearthnet_v2 import IMAGES, tile_of

if TYPE_CHECKING:
    from pyproj import Transformer

# Tags of GeoTIFF 1.1 (OGC 19-008r4), and the keys in its directory that name a reference system.
_SCALE, _TIEPOINT, _MATRIX, _KEYS = 33550, 33922, 34264, 34735
_GEOGRAPHIC, _PROJECTED, _USER_DEFINED = 2048, 3072, 32767

Files = Iterator[tuple[str, IO[bytes]]]
Finder = Callable[[Path, Sequence[str]], Files]
"""Folder or archive of the data, names → name and open file of those that exist."""


def outlines(task: str, path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The corner coordinates of images whose files carry them.

    Args:
        task: name in the table of tasks.
        path: the data, as its reader takes it.
        names: of the images; for pixel labels, of scenes or of their groups.

    Returns:
        Name → (4, 2) float64 longitude and latitude in degrees; names whose files carry no coordinates are left out.
    """
    if task not in _FINDERS:
        return {}
    found: dict[str, np.ndarray] = {}
    for name, stream in _FINDERS[task](path, names):
        with closing(stream):
            corners = corners_of(stream)
        if corners is not None:
            found[name] = corners
    return found


def corners_of(stream: IO[bytes]) -> np.ndarray | None:
    """(4, 2) longitude and latitude of a GeoTIFF's corners, from the upper left around; None: no coordinates."""
    import tifffile

    try:
        with tifffile.TiffFile(stream) as tiff:
            page = tiff.series[0].keyframe
            tags = {code: page.tags[code].value for code in (_SCALE, _TIEPOINT, _MATRIX, _KEYS) if code in page.tags}
            height, width = page.imagelength, page.imagewidth
        epsg = _epsg(tags.get(_KEYS, ()))
        if epsg is None or not ({_SCALE, _TIEPOINT} <= tags.keys() or _MATRIX in tags):
            return None
        column, row = np.array([0.0, width, width, 0.0]), np.array([0.0, 0.0, height, height])
        x, y = _projected(tags, column, row)
        lon, lat = _to_degrees(epsg).transform(x, y)
    # the reader refuses damaged files, which raise nearly every kind of exception in tifffile; here they have no location
    except Exception:
        return None
    corners = np.column_stack([lon, lat])
    return corners if np.isfinite(corners).all() else None


def _projected(tags: Mapping[int, Sequence[float]], column: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if _MATRIX in tags:
        a, b, _, d, e, f, _, h = tags[_MATRIX][:8]
        return a * column + b * row + d, e * column + f * row + h
    (wide, high, *_), (i, j, _, x, y, *_) = tags[_SCALE], tags[_TIEPOINT]
    return x + wide * (column - i), y - high * (row - j)


def _epsg(keys: Sequence[int]) -> int | None:
    """The code in a directory of keys: a header of four numbers, then four for each key (name, where, count, value)."""
    known = {keys[at]: keys[at + 3] for at in range(4, len(keys) - 3, 4) if keys[at + 1] == 0}
    code = known.get(_PROJECTED) or known.get(_GEOGRAPHIC)
    return None if code in (None, 0, _USER_DEFINED) else int(code)


@cache
def _to_degrees(epsg: int) -> Transformer:
    from pyproj import Transformer

    return Transformer.from_crs(epsg, 4326, always_xy=True)


def _members(pattern: str, path: Path, names: Sequence[str]) -> Files:
    """The first member of archives or of a folder whose name contains the image's name, for each image."""
    archives, matched = open_archives(path), re.compile(pattern, re.IGNORECASE)
    wanted = {fold(name): name for name in names}
    for member in archives.names():
        if (match := matched.search(member)) and (name := wanted.pop(fold(match[1]), None)):
            yield name, archives.open(member)


def _patches(path: Path, names: Sequence[str]) -> Files:
    """BigEarthNet, first version: listing the millions of files of the published set would take longer than opening these."""
    root = next((path / name for name in FOLDERS if (path / name).is_dir()), path)
    return _opened((name, root / name / f"{name}_B02.tif") for name in names)


def _tiled_patches(path: Path, names: Sequence[str]) -> Files:
    return _opened((name, path / IMAGES / tile_of(name) / name / f"{name}_B02.tif") for name in names)


def _opened(files: Iterator[tuple[str, Path]]) -> Files:
    return ((name, found.open("rb")) for name, file in files if (found := find_file(file.parent, file.name)))


_FINDERS: dict[str, Finder] = {
    "eurosat_ms": partial(_members, r"(?:^|/)([^/]+\.tif)$"),
    "bigearthnet": _patches,
    "bigearthnet_v2": _tiled_patches,
    "oscd": partial(_members, r"(?:^|/)([^/]+)/imgs_1_rect/[^/]*B04\.tif$"),
    # masks and images of a cube lie in folders with its name
    "dynamicearthnet": partial(_members, r"(?:^|/)(\d+_\d+_\d+[^/]*)/(?:.*/)?[^/]+\.tif$"),
    "whu_cd": partial(_members, r"(?:^|/)2012/whole_image/(train|test)/image/[^/]+\.tif$"),
    "potsdam": partial(_members, r"(?:^|/)top_potsdam_(\d+_\d+)_RGB(?:IR)?\.tif$"),
    "vaihingen": partial(_members, r"(?:^|/)top/top_mosaic_09cm_area(\d+)\.tif$"),
}
