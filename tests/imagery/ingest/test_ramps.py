"""Pixels that hold their own coordinates, read by every path onto a chip: what comes out must be where the chip is."""

import math

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.io import MemoryFile

from caco_assets.imagery.geometry.chip_grid import Grid, chip_grids
from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.reading.http.cog_reader import MARGIN, _plan
from caco_assets.imagery.reading.http.tiff_index import read_index
from caco_assets.imagery.reading.resample import read_grid

SIZE, SIDE_M = 32, 3000


def ramp(epsg: int, left: float, top: float, resolution: float) -> bytes:
    """Two bands, east and south of the corner in metres, as a GeoTIFF of small blocks."""
    pixels = round(SIDE_M / resolution)
    south, east = (np.mgrid[:pixels, :pixels] + 0.5) * resolution
    layers = np.stack([east, south]).astype(np.float32) + 1
    place = {"crs": f"EPSG:{epsg}", "transform": Affine(resolution, 0, left, 0, -resolution, top), "nodata": 0}
    shape = {"height": pixels, "width": pixels, "count": 2, "dtype": "float32", "tiled": True, "blockxsize": 32, "blockysize": 32}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", compress="deflate", **place, **shape) as raster:
            raster.write(layers)
        return bytes(memory.getbuffer())


def chip_centres(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the chip's pixel centres in its projection."""
    rows, columns = np.mgrid[: grid.size, : grid.size] + 0.5
    return grid.left + columns * grid.resolution, grid.top - rows * grid.resolution


def read_both(content: bytes, grid: Grid, nearest: bool) -> np.ndarray:
    """Read from the file, and from just the blocks that a remote read would fetch: the same."""
    with MemoryFile(content) as memory, memory.open() as raster:
        whole = read_grid(raster, [1, 2], grid, nearest=nearest, nodata=0)
    index = read_index(content)
    numbers = _plan(index, [1, 2], [grid], MARGIN).numbers.tolist()
    parts = {n: content[int(index.offsets[n]) : int(index.offsets[n] + index.counts[n])] for n in numbers}
    with MemoryFile(index.extract(parts)) as memory, memory.open() as raster:
        part = read_grid(raster, [1, 2], grid, nearest=nearest, nodata=0)
    assert (whole == part).all()
    return whole


@given(
    st.sampled_from([(10.0, 0.0), (10.0, 3.0), (20.0, 0.0), (20.0, 10.0), (60.0, 0.0), (60.0, 30.0)]),
    st.integers(6, 190),
    st.integers(6, 190),
    st.booleans(),
)
def test_pixels_of_the_same_projection_come_out_where_they_are(size_and_phase, right, down, nearest):
    resolution, phase = size_and_phase
    left, top = 600_000.0, 5_000_000.0
    content = ramp(32631, left - phase, top + phase, resolution)
    grid = Grid(32631, left + 10 * right, top - 10 * down, SIZE, 10.0)
    east, south = read_both(content, grid, nearest)
    x, y = chip_centres(grid)
    # interpolation between centres is exact; the nearest centre lies at most half a pixel away
    error = resolution / 2 + 0.01 if nearest else 0.01
    assert np.abs(east - 1 - (x - left + phase)).max() <= error
    assert np.abs(south - 1 - (top + phase - y)).max() <= error


# longitude, latitude, EPSG of the image: the chip's own zone is another one
ABROAD = [
    (6.01, 45.0, 32631),
    (5.99, 45.0, 32632),
    (6.002, -33.0, 32731),
    (179.99, -16.8, 32701),
    (-179.99, -16.8, 32760),
    (-179.995, 65.0, 32660),
]


@pytest.mark.parametrize(("lon", "lat", "epsg"), ABROAD)
@pytest.mark.parametrize("resolution", [10.0, 20.0, 60.0])
@pytest.mark.parametrize("nearest", [False, True])
def test_pixels_of_the_neighbouring_zone_come_out_where_they_are_also_across_the_antimeridian(lon, lat, epsg, resolution, nearest):
    [grid] = chip_grids(np.array([lon]), np.array([lat]), SIZE, 10.0)
    assert grid.epsg != epsg
    x, y = chip_centres(grid)
    own_x, own_y = Transformer.from_crs(grid.epsg, epsg, always_xy=True).transform(x, y)
    left = math.floor((own_x.mean() - SIDE_M / 2) / resolution) * resolution
    top = math.ceil((own_y.mean() + SIDE_M / 2) / resolution) * resolution
    east, south = read_both(ramp(epsg, left, top, resolution), grid, nearest)
    # GDAL's warp approximates to an eighth of a pixel of the chip
    error = (resolution / 2 if nearest else 0.0) + 10 / 8 + 0.1
    assert np.abs(east - 1 - (own_x - left)).max() <= error * math.sqrt(2)
    assert np.abs(south - 1 - (top - own_y)).max() <= error * math.sqrt(2)


@pytest.mark.parametrize(("lon", "lat", "epsg"), ABROAD)
@pytest.mark.parametrize(("right", "down"), [(-1, 0), (1, 0), (0, -1), (0, 1)])
def test_a_chip_across_the_edge_of_a_tile_is_refused_in_every_projection(lon, lat, epsg, right, down):
    [grid] = chip_grids(np.array([lon]), np.array([lat]), SIZE, 10.0)
    x, y = chip_centres(grid)
    for code in (grid.epsg, epsg):
        own_x, own_y = Transformer.from_crs(grid.epsg, code, always_xy=True).transform(x, y)
        # the chip's centre lies on the middle of an edge
        left = round((own_x.mean() - SIDE_M / 2 * (1 - right)) / 10) * 10.0
        top = round((own_y.mean() + SIDE_M / 2 * (1 + down)) / 10) * 10.0
        with MemoryFile(ramp(code, left, top, 10.0)) as memory, memory.open() as raster, pytest.raises(UnreadableError) as refusal:
            read_grid(raster, [1], grid, nearest=False, nodata=0)
        assert refusal.value.reason == "outside_footprint"


def test_classes_abroad_are_never_mixed():
    [grid] = chip_grids(np.array([6.01]), np.array([45.0]), SIZE, 10.0)
    classes = np.random.default_rng(0).choice([4, 9], (1, 150, 150)).astype(np.uint8)
    x, y = Transformer.from_crs(grid.epsg, 32631, always_xy=True).transform(grid.left, grid.top)
    place = {"crs": "EPSG:32631", "transform": Affine(20, 0, round(x) - 1000, 0, -20, round(y) + 1000), "nodata": 0}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", height=150, width=150, count=1, dtype="uint8", **place) as raster:
            raster.write(classes)
        with rasterio.Env(), memory.open() as raster:
            found = read_grid(raster, [1], grid, nearest=True, nodata=0)
    assert set(np.unique(found).tolist()) == {4, 9}
