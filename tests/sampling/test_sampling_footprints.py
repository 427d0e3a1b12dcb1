"""Footprints of GeoTIFFs, polygons of files, and the point-in-polygon test that regions and land use."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import Affine, from_origin
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from caco_assets.cli import main
from caco_assets.core.errors import UserError
from caco_assets.sampling.footprints import raster_footprint, read_footprints, write_footprints
from caco_assets.sampling.polygons import clean, covered, cut_at_antimeridian, enclosing_box, read_polygons
from caco_assets.sampling.region import Region


def silent(_line):
    pass


def write_tif(path, transform, crs="EPSG:32632", size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "width": size, "height": size, "count": 1, "dtype": "uint8", "crs": crs, "transform": transform}
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(np.ones((1, size, size), np.uint8))
    return path


def test_a_footprint_is_the_outline_of_the_raster(tmp_path):
    path = write_tif(tmp_path / "a.tif", from_origin(500_000, 5_000_000, 100, 100))
    shape = raster_footprint(path)
    back = gpd.GeoSeries([shape], crs=4326).to_crs(32632).iloc[0]
    assert back.symmetric_difference(box(500_000, 4_999_200, 500_800, 5_000_000)).area < 1e-3


def test_a_rotated_raster_has_a_rotated_footprint(tmp_path):
    path = write_tif(tmp_path / "a.tif", Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(100, -100))
    back = gpd.GeoSeries([raster_footprint(path)], crs=4326).to_crs(32632).iloc[0]
    assert back.area == pytest.approx(800**2)
    assert back.bounds[2] - back.bounds[0] == pytest.approx(800 * (np.cos(np.pi / 6) + 0.5))


def test_the_edges_of_a_large_raster_are_followed_to_a_few_metres(tmp_path):
    path = write_tif(tmp_path / "tile.tif", from_origin(199_980, 7_900_020, 13_725, 13_725), crs="EPSG:32633")  # a tile's 109.8 km
    exact = shapely.segmentize(box(199_980, 7_790_220, 309_780, 7_900_020), 100)
    exact = gpd.GeoSeries([exact], crs=32633).to_crs(4326).iloc[0]
    gap = gpd.GeoSeries([exact, raster_footprint(path)], crs=4326).to_crs(32633)
    assert gap.iloc[0].symmetric_difference(gap.iloc[1]).area / gap.iloc[0].length < 3


def test_a_footprint_across_the_antimeridian_is_cut_in_two(tmp_path):
    write_tif(tmp_path / "a.tif", from_origin(-180.0 + 359.98, -17.0, 0.005, 0.005), crs="EPSG:4326")
    write_tif(tmp_path / "b.tif", from_origin(805_000, 8_120_000, 1000, 1000), crs="EPSG:32760", size=32)  # Fiji
    found = read_footprints(tmp_path)
    for shape in found.shapes:
        assert isinstance(shape, MultiPolygon)
        west, _, east, _ = shape.bounds
        assert (west, east) == (-180, 180)
        assert sum(part.bounds[2] - part.bounds[0] for part in shape.geoms) < 1


def test_bands_and_dates_of_one_footprint_count_once_and_what_has_none_is_named(tmp_path):
    here = from_origin(500_000, 5_000_000, 60, 60)
    write_tif(tmp_path / "p1" / "p1_B01.tif", here)
    write_tif(tmp_path / "p1" / "p1_B02.tif", from_origin(500_000, 5_000_000, 10, 10), size=48)
    write_tif(tmp_path / "p2" / "p2_B01.tiff", from_origin(600_000, 5_000_000, 60, 60))
    (tmp_path / "p3_B01.tif").write_text("<html>no picture</html>")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write_tif(tmp_path / "p4_B01.tif", Affine.identity(), crs=None)
    found = read_footprints(tmp_path)
    assert found.names == ["p1/p1_B01.tif", "p2/p2_B01.tiff"]
    assert found.files == 5
    assert found.refused == {"p3_B01.tif": "not readable as a raster", "p4_B01.tif": "has no georeference"}
    assert read_footprints(tmp_path, "**/*_B02.tif").names == ["p1/p1_B02.tif"]
    with pytest.raises(UserError, match=r"none of the 1 files has a footprint .*not readable"):
        read_footprints(tmp_path, "p3*")
    with pytest.raises(UserError, match=r"no file matches \*\.jp2"):
        read_footprints(tmp_path, "*.jp2")


@pytest.mark.parametrize("name", ["out/zones.parquet", "zones.geojson"])
def test_the_command_writes_what_sampling_reads(tmp_path, name):
    write_tif(tmp_path / "data" / "a.tif", from_origin(500_000, 5_000_000, 10, 10))
    (tmp_path / "data" / "b.tif").write_text("")
    done = CliRunner().invoke(main, ["footprints", str(tmp_path / "data"), "-o", str(tmp_path / name)])
    assert done.exit_code == 0
    assert "1 footprints of 2 files, 1 files without one" in done.output
    assert "b.tif: not readable as a raster" in done.output
    assert len(read_polygons(tmp_path / name, "sampling.exclude")) == 1


def test_the_command_says_what_is_wrong_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(main, ["footprints", str(tmp_path / "empty"), "-o", str(tmp_path / "x.parquet")])
    assert done.exit_code == 2
    assert done.output.strip() == f"caco: {tmp_path / 'empty'}: no file matches **/*.tif*"
    write_tif(tmp_path / "a.tif", from_origin(500_000, 5_000_000, 10, 10))
    with pytest.raises(UserError, match=r"written as .parquet or .geojson"):
        write_footprints(read_footprints(tmp_path), tmp_path / "x.shp")


def test_the_patches_of_eurosat_and_bigearthnet_have_their_known_size(real):
    eurosat = read_footprints(real / "eurosat_ms")
    assert (eurosat.files, len(eurosat.names), eurosat.refused) == (100, 100, {})
    areas = gpd.GeoSeries(eurosat.shapes, crs=4326).to_crs(3035).area  # 64 pixels of 10 m
    assert areas.between(640**2 * 0.985, 640**2 * 1.015).all()
    bigearthnet = read_footprints(real / "bigearthnet", "**/*_B02.tif")
    assert len(bigearthnet.names) == 3
    assert gpd.GeoSeries(bigearthnet.shapes, crs=4326).to_crs(3035).area.between(1195**2, 1205**2).all()


def test_polygons_of_a_file_come_in_degrees_whole_and_valid(tmp_path):
    bow_tie = Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    frame = gpd.GeoDataFrame(geometry=[bow_tie, MultiPolygon([box(5, 5, 6, 6), box(7, 7, 8, 8)]), Point(9, 9)], crs=4326)
    frame.to_crs(3857).to_file(tmp_path / "shapes.gpkg", driver="GPKG")
    shapes = read_polygons(tmp_path / "shapes.gpkg", "sampling.exclude")
    assert len(shapes) == 4
    assert shapely.is_valid(shapes).all()
    assert shapely.area(shapes).sum() == pytest.approx(4, rel=1e-3)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_text("not json"), "not readable as polygons"),
        (lambda path: gpd.GeoSeries([Point(0, 0), LineString([(0, 0), (1, 1)])], crs=4326).to_file(path), "holds no polygon"),
        (lambda path: path.write_text('{"type": "FeatureCollection", "features": []}'), "(no geometry|no polygon)"),
    ],
)
def test_a_file_without_polygons_is_an_error_that_names_the_setting(tmp_path, write, message):
    path = tmp_path / "zones.geojson"
    write(path)
    with pytest.raises(UserError, match=rf"^sampling\.exclude=.*zones\.geojson: .*{message}"):
        read_polygons(path, "sampling.exclude")


def test_polygons_without_a_reference_system_are_an_error(tmp_path):
    gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)]).to_parquet(tmp_path / "zones.parquet")
    with pytest.raises(UserError, match="has no coordinate reference system"):
        read_polygons(tmp_path / "zones.parquet", "sampling.exclude")


def test_natural_earth_is_land_even_where_a_polygon_is_invalid(real):
    from caco_assets.sampling.land import is_land

    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 4000), np.degrees(np.arcsin(rng.uniform(-1, 1, 4000)))
    for name, agree in (("ne_110m_land.json", 0.985), ("ne_50m_land.json", 0.99)):
        path = real / "natural_earth" / name
        raw = np.asarray(gpd.read_file(path).geometry.array)
        shapes = read_polygons(path, "sampling.land")
        assert shapely.is_valid(shapes).all()
        assert (name != "ne_110m_land.json") or not shapely.is_valid(raw).all()
        # nothing was lost or doubled by mending and cutting: Eurasia and Antarctica are wider than 180 degrees
        assert shapely.area(shapes).sum() == pytest.approx(shapely.area(raw).sum(), rel=1e-4)
        assert (covered(shapes, lon, lat) == is_land(lon, lat)).mean() > agree


def test_a_ring_that_jumps_is_cut_and_one_along_the_edge_of_the_map_is_not():
    fiji = Polygon([(178, -20), (-178, -20), (-178, -16), (178, -16)])
    parts = cut_at_antimeridian(fiji)
    assert sorted(part.bounds for part in parts) == [(-180, -20, -178, -16), (178, -20, 180, -16)]
    antarctica = Polygon([(-180, -90), (180, -90), (180, -75), (0, -70), (-180, -75)])
    assert cut_at_antimeridian(antarctica) == [antarctica]
    wide = shapely.segmentize(box(-170, 0, 175, 1), 90)  # its edges are not long enough for a jump
    assert [part.bounds for part in clean(np.array([wide], object))] == [(-170, 0, 175, 1)]
    beyond = clean(np.array([box(170, 0, 190, 1), box(-200, 5, -170, 6)], object))
    assert sorted(part.bounds for part in beyond) == [(-180, 0, -170, 1), (-180, 5, -170, 6), (160, 5, 180, 6), (170, 0, 180, 1)]


@given(st.integers(0, 2**32 - 1))
def test_covered_is_what_asking_each_polygon_about_each_point_gives(seed):
    rng = np.random.default_rng(seed)
    shapes = shapely.buffer(shapely.points(rng.uniform(-10, 10, (5, 2))), rng.uniform(0.5, 5, 5))
    lon, lat = rng.uniform(-15, 15, (2, 60))
    plain = [any(shape.intersects(Point(x, y)) for shape in shapes) for x, y in zip(lon, lat, strict=True)]
    assert covered(shapes, lon, lat).tolist() == plain


def test_the_narrowest_box_around_polygons_goes_over_the_antimeridian():
    fiji = np.array([box(177, -19, 180, -16), box(-180, -20, -178, -15)], object)
    assert enclosing_box(fiji) == (177, -20, -178, -15)
    assert enclosing_box(np.array([box(-10, 40, 3, 44), box(-5, 35, 4, 36)], object)) == (-10, 35, 4, 44)
    assert Region(None, fiji).bounds == (177, -20, -178, -15)
    assert Region(None, fiji).contains(np.array([178.0, -179.0, 0.0]), np.array([-17.0, -17.0, -17.0])).tolist() == [
        True,
        True,
        False,
    ]


@given(st.lists(st.tuples(st.floats(-180, 179), st.floats(0, 170), st.floats(-80, 79)), min_size=1, max_size=6))
def test_the_box_around_polygons_holds_them_all(boxes):
    shapes = clean(np.array([box(west, south, min(west + width + 0.1, 180), south + 1) for west, width, south in boxes], object))
    west, south, east, north = enclosing_box(shapes)
    inner = shapely.point_on_surface(shapes)
    assert Region((west, south, east, north)).contains(shapely.get_x(inner), shapely.get_y(inner)).all()
