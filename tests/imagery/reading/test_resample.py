import numpy as np
import pytest
from affine import Affine
from rasterio.io import MemoryFile

from caco_assets.imagery.geometry.chip_grid import Grid
from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.reading.resample import read_grid

LEFT, TOP = 500_000.0, 4_650_000.0


def raster_of(layers: np.ndarray, resolution: float, epsg: int = 32631, left: float = LEFT, top: float = TOP):
    """An open in-memory GeoTIFF of (bands, H, W)."""
    memory = MemoryFile()
    count, height, width = layers.shape
    transform = Affine(resolution, 0, left, 0, -resolution, top)
    profile = {"driver": "GTiff", "crs": f"EPSG:{epsg}", "transform": transform, "dtype": layers.dtype}
    with memory.open(**profile, count=count, height=height, width=width) as raster:
        raster.write(layers)
    return memory.open()


def plane(height: int, width: int, resolution: float) -> np.ndarray:
    """Values that grow linearly with the coordinates: bilinear interpolation gives them back exactly."""
    rows, columns = np.mgrid[:height, :width]
    return ((columns + 0.5) * resolution + 3 * (rows + 0.5) * resolution).astype(np.float32)[None]


def chip(left: float, top: float, size: int = 16, resolution: float = 10.0) -> Grid:
    return Grid(32631, LEFT + left, TOP - top, size, resolution)


def expected(grid: Grid) -> np.ndarray:
    rows, columns = np.mgrid[: grid.size, : grid.size]
    x = grid.left - LEFT + (columns + 0.5) * grid.resolution
    y = TOP - grid.top + (rows + 0.5) * grid.resolution
    return x + 3 * y


def test_pixels_on_the_grid_are_copied_exactly():
    layers = np.arange(2 * 40 * 40, dtype=np.uint16).reshape(2, 40, 40)
    with raster_of(layers, 10) as raster:
        found = read_grid(raster, [2, 1], chip(50, 120), nearest=False, nodata=0)
    assert found.dtype == np.uint16
    assert (found == layers[[1, 0], 12:28, 5:21]).all()


@pytest.mark.parametrize(("resolution", "left", "top"), [(20, 100, 60), (20, 110, 70), (60, 130, 190), (10, 53, 47)])
def test_coarser_and_shifted_pixels_are_interpolated_between_their_centres(resolution, left, top):
    with raster_of(plane(60, 60, resolution), resolution) as raster:
        grid = chip(left, top)
        found = read_grid(raster, [1], grid, nearest=False, nodata=None)
    assert found[0] == pytest.approx(expected(grid), rel=1e-5)


def test_the_outermost_pixels_are_continued_not_invented():
    with raster_of(plane(10, 10, 20), 20) as raster:
        found = read_grid(raster, [1], chip(0, 0), nearest=False, nodata=None)
    assert found[0, 0, 0] == pytest.approx(40.0)  # the first centre's own value
    assert found.min() >= 40.0


@pytest.mark.parametrize(("left", "top"), [(0, 0), (10, 30)])
def test_classes_take_the_nearest_pixel(left, top):
    layers = np.random.default_rng(0).integers(0, 12, (1, 30, 30), dtype=np.uint8)
    with raster_of(layers, 20) as raster:
        found = read_grid(raster, [1], chip(left, top), nearest=True, nodata=0)
    fine = layers[0].repeat(2, axis=0).repeat(2, axis=1)
    assert found.dtype == np.uint8
    assert (found[0] == fine[top // 10 : top // 10 + 16, left // 10 : left // 10 + 16]).all()


def test_no_data_is_not_mixed_into_its_neighbours():
    layers = np.full((1, 20, 20), 1000, np.uint16)
    layers[0, 5, 5] = 0
    with raster_of(layers, 20) as raster:
        found = read_grid(raster, [1], chip(40, 40), nearest=False, nodata=0)
    assert set(np.unique(found).tolist()) == {0.0, 1000.0}
    assert (found == 0).sum() == 16


def test_a_finer_raster_is_averaged():
    layers = np.arange(400 * 400, dtype=np.float32).reshape(1, 400, 400)
    with raster_of(layers, 2) as raster:
        found = read_grid(raster, [1], chip(100, 200), nearest=False, nodata=None)
    blocks = layers[0, 100:180, 50:130].reshape(16, 5, 16, 5).mean(axis=(1, 3))
    assert found[0] == pytest.approx(blocks, rel=1e-4)


def test_another_projection_goes_through_a_warped_view():
    from pyproj import Transformer

    height = width = 400
    west, north, step = 2.99, 42.01, 0.0001
    lon, lat = np.meshgrid(west + (np.arange(width) + 0.5) * step, north - (np.arange(height) + 0.5) * step)
    x, y = Transformer.from_crs(4326, 32631, always_xy=True).transform(lon, lat)
    values = np.stack([x - LEFT, y - 4_640_000]).astype(np.float32)
    grid = Grid(32631, 500_200.0, 4_649_900.0, 32, 10.0)
    with raster_of(values, step, epsg=4326, left=west, top=north) as raster:
        found = read_grid(raster, [1, 2], grid, nearest=False, nodata=None)
    rows, columns = np.mgrid[:32, :32]
    assert found[0] == pytest.approx(200 + (columns + 0.5) * 10, abs=1.5)  # GDAL warps to an eighth of a pixel
    assert found[1] == pytest.approx(9900 - (rows + 0.5) * 10, abs=1.5)


def test_a_dark_zero_in_one_band_survives_the_warp():
    layers = np.full((2, 60, 60), 500, np.int16)
    layers[1] = 0
    with raster_of(layers, 0.0001, epsg=4326, left=2.999, top=42.0) as raster:
        found = read_grid(raster, [1, 2], Grid(32631, 500_000.0, 4_649_700.0, 16, 10.0), nearest=False, nodata=0)
    assert (found[0] == 500).all()
    assert (found[1] == 0).all()


@pytest.mark.parametrize(("left", "top"), [(-10, 0), (0, -10), (250, 0), (0, 250)])
def test_a_chip_beyond_the_edge_is_refused(left, top):
    with raster_of(plane(40, 40, 10), 10) as raster, pytest.raises(UnreadableError) as refusal:
        read_grid(raster, [1], chip(left, top), nearest=False, nodata=None)
    assert refusal.value.reason == "outside_footprint"


def test_gdal_agrees_with_our_bilinear_interpolation():
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    layers = np.random.default_rng(1).integers(1, 4000, (1, 60, 60)).astype(np.float32)
    grid = chip(110, 90, size=32)
    with raster_of(layers, 20) as raster:
        ours = read_grid(raster, [1], grid, nearest=False, nodata=None)
        with WarpedVRT(
            raster, crs="EPSG:32631", transform=grid.transform, width=32, height=32, resampling=Resampling.bilinear
        ) as view:
            theirs = view.read([1])
    assert ours == pytest.approx(theirs, abs=0.01)
