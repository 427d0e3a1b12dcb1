import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from shapely.geometry import Point

from caco_assets.imagery.geometry.chip_grid import chip_footprints, chip_grids, utm_epsg
from caco_assets.imagery.geometry.footprint import across_antimeridian, raster_footprint


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [
        (2.8, 42.3, 32631),
        (-0.1, 51.5, 32630),
        (151.2, -33.9, 32756),
        (-180.0, 10.0, 32601),
        (179.999, -10.0, 32760),
        (0.0, 0.0, 32631),
    ],
)
def test_zones(lon, lat, epsg):
    assert utm_epsg(np.array([lon]), np.array([lat])).tolist() == [epsg]


@given(st.floats(-180, 179.9999), st.floats(-75, 75), st.sampled_from([64, 128, 264]), st.sampled_from([10.0, 20.0]))
def test_a_chip_is_snapped_centred_and_its_footprint_holds_the_place(lon, lat, size, resolution):
    grid = chip_grids(np.array([lon]), np.array([lat]), size, resolution)[0]
    assert grid.left % resolution == 0
    assert grid.top % resolution == 0
    x, y = Transformer.from_crs(4326, grid.epsg, always_xy=True).transform(lon, lat)
    left, bottom, right, top = grid.bounds
    assert abs((left + right) / 2 - x) <= resolution / 2 + 1e-6
    assert abs((bottom + top) / 2 - y) <= resolution / 2 + 1e-6
    footprint = chip_footprints([grid])[0]
    assert footprint.is_valid
    assert footprint.distance(Point(lon, lat)) < 1e-9 or lon == -180
    assert footprint.area < 0.1


def test_grids_keep_the_order_of_the_places_across_zones():
    lon, lat = np.array([3.0, 9.0, 3.01, -70.0]), np.array([42.0, 48.0, 42.01, -30.0])
    grids = chip_grids(lon, lat, 64, 10)
    assert [grid.epsg for grid in grids] == [32631, 32632, 32631, 32719]
    centres = np.array([[shape.centroid.x, shape.centroid.y] for shape in chip_footprints(grids)])
    assert centres == pytest.approx(np.stack([lon, lat], axis=1), abs=2e-4)


def test_a_chip_across_the_antimeridian_lies_in_a_tile_across_it():
    chip = chip_footprints(chip_grids(np.array([179.9999]), np.array([-16.5]), 264, 10))[0]
    assert chip.geom_type == "MultiPolygon"
    tile = raster_footprint((99_960, 8_090_200, 1_000_000, 8_300_000), "EPSG:32701")
    assert tile.geom_type == "MultiPolygon"
    assert tile.bounds[0] == -180
    assert tile.bounds[2] == 180
    assert shapely.within(chip, tile)


def test_an_ordinary_polygon_is_left_as_it_is():
    box = shapely.box(10, 10, 20, 20)
    assert across_antimeridian(box) is box


def test_the_edges_of_a_raster_footprint_follow_the_projection():
    footprint = raster_footprint((399_960, 6_890_220, 509_760, 7_000_020), "EPSG:32633")
    corners = shapely.get_coordinates(footprint)
    assert len(corners) > 60
    x, y = Transformer.from_crs(4326, 32633, always_xy=True).transform(*corners.T)
    on_edge = np.min([np.abs(x - 399_960), np.abs(x - 509_760), np.abs(y - 6_890_220), np.abs(y - 7_000_020)], axis=0)
    assert on_edge.max() < 1e-3
