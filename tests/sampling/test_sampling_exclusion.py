"""No chip of an accepted place meets the footprint of a test set."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from shapely.geometry import Point, box

from caco_assets.core.errors import UserError
from caco_assets.imagery.geometry.chip_grid import chip_footprints, chip_grids
from caco_assets.sampling.acceptance import acceptance_of
from caco_assets.sampling.exclusion import Zones, chip_boxes, known_benchmarks, known_zones, zones_of
from caco_assets.sampling.fingerprint_inputs import ALWAYS, decisive
from caco_assets.sampling.gazetteer import most_populous
from caco_assets.sampling.sampler import draw
from caco_assets.sampling.sphere import destination
from caco_assets.sampling.stage import sample
from caco_assets.settings import Sampling, load_settings

OSCD_TRAIN = {"aguasclaras", "bercy", "bordeaux", "nantes", "paris", "rennes", "saclay_e", "abudhabi", "cupertino", "pisa"}
OSCD_TRAIN |= {"beihai", "hongkong", "beirut", "mumbai"}
OSCD_TEST = {"brasilia", "montpellier", "norcia", "rio", "saclay_w", "valencia", "dubai", "lasvegas", "milano", "chongqing"}


def settings_with(home=None, chip_size=264, **sampling):
    return load_settings(
        "tiny", home=home, sampling={"cities": 200, "sigma_km": 50.0, **sampling}, imagery={"chip_size": chip_size}
    )


def silent(_line):
    pass


def test_every_known_zone_is_a_box_with_source_precision_and_licence():
    zones = known_zones()
    assert known_benchmarks() == ("oscd", "dynamicearthnet", "levir_cd", "whu_cd", "loveda", "potsdam", "vaihingen")
    for zone in zones:
        west, south, east, north = zone.box
        assert -180 <= west < east <= 180
        assert -90 <= south < north <= 90
        assert all((zone.precision, zone.source, zone.licence))
        assert zone.split in ("train", "test", "any")
    assert len({(zone.benchmark, zone.name) for zone in zones}) == len(zones)


def test_the_zones_of_oscd_are_its_24_cities_and_lie_where_the_gazetteer_says():
    zones = {zone.name: zone for zone in known_zones() if zone.benchmark == "oscd"}
    assert {name for name, zone in zones.items() if zone.split == "train"} == OSCD_TRAIN
    assert {name for name, zone in zones.items() if zone.split == "test"} == OSCD_TEST
    cities = most_populous(20_000)
    # OSCD lies in Brazil, the USA, Europe, the Middle East and Asia: this Valencia is the Spanish one
    towns = {"paris": "FR", "nantes": "FR", "beirut": "LB", "mumbai": "IN", "valencia": "ES", "dubai": "AE", "pisa": "IT"}
    towns |= {"chongqing": "CN", "beihai": "CN", "cupertino": "US", "montpellier": "FR", "rennes": "FR", "bordeaux": "FR"}
    there = {("abudhabi", "AE"): "Abu Dhabi", ("rio", "BR"): "Rio de Janeiro", ("lasvegas", "US"): "Las Vegas"}
    there |= {("milano", "IT"): "Milan", ("hongkong", "HK"): "Hong Kong", ("brasilia", "BR"): "Brasília"}
    for (name, country), city in (there | {(name, code): name.capitalize() for name, code in towns.items()}).items():
        row = int(np.flatnonzero((cities.city == city) & (cities.country == country))[0])
        assert shapely.box(*zones[name].box).contains(Point(cities.lon[row], cities.lat[row])), name


def test_a_zone_of_dynamicearthnet_holds_the_tile_that_its_name_says():
    zones = [zone for zone in known_zones() if zone.benchmark == "dynamicearthnet"]
    assert len(zones) == 75
    for zone in zones:
        column, row, zoom = map(int, zone.name.split("_"))
        west, north = column / 2**zoom * 360 - 180, np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * row / 2**zoom))))
        assert shapely.box(*zone.box).contains(Point(west + 180 / 2**zoom, north - 0.01))


@given(st.floats(-180, 179.999), st.floats(-84, 84), st.integers(32, 1024), st.sampled_from([10.0, 20.0, 60.0]))
def test_the_box_holds_the_chip_that_imagery_reads(lon, lat, size, resolution):
    chip = chip_footprints(chip_grids(np.array([lon]), np.array([lat]), size, resolution))[0]
    chip = shapely.segmentize(chip, 0.01)
    west, south, east, north = (
        float(side[0]) for side in chip_boxes(np.array([lon]), np.array([lat]), (size + 1) * resolution / 1000)
    )
    for x, y in shapely.get_coordinates(chip):
        assert south <= y <= north
        assert any(west <= x + turn <= east for turn in (-360, 0, 360))


@given(st.floats(-180, 179.999), st.floats(-89, 89), st.floats(0.3, 60))
def test_the_box_is_little_larger_than_the_chip(lon, lat, side):
    west, south, east, north = (float(edge[0]) for edge in chip_boxes(np.array([lon]), np.array([lat]), side))
    assume(abs(lat) + side / 100 < 89)
    assert (north - south) * 111.32 == pytest.approx(1.1 * side, rel=0.01)
    assert (east - west) * 111.32 * np.cos(np.radians(lat)) <= 1.1 * side * (1 + side / 111 / (90 - abs(lat)) * 60)


near_edges = st.sampled_from([(179.99, 10.0), (-179.99, -50.0), (0.0, 89.9), (12.0, -89.95), (-180.0, 0.0)])


@given(near_edges, st.integers(0, 2**32 - 1))
def test_zones_are_met_across_the_antimeridian_and_at_the_poles(centre, seed):
    """Against the plain answer: a small zone at a point is met exactly by the chips whose box holds the point."""
    rng, count = np.random.default_rng(seed), 200
    lon, lat = destination(
        np.full(count, centre[0]), np.full(count, centre[1]), rng.uniform(0, 2 * np.pi, count), rng.uniform(0, 6, count)
    )
    zone_lon, zone_lat = float(lon[0]), float(lat[0])
    zones = Zones(np.array([Point(zone_lon, zone_lat).buffer(1e-9)], object), 2.64)
    west, south, east, north = chip_boxes(lon, lat, 2.64)
    held = (south <= zone_lat) & (zone_lat <= north)
    held &= np.any([(west <= zone_lon + turn) & (zone_lon + turn <= east) for turn in (-360, 0, 360)], axis=0)
    assert zones.touched(lon, lat).tolist() == held.tolist()
    assert zones.touched(lon, lat)[0]


@pytest.mark.parametrize("strategy", ["caco", "gaussian_cities", "uniform_land", "grid"])
def test_no_chip_of_an_accepted_place_meets_a_zone(strategy):
    region = [-8.0, 36.0, 20.0, 55.0]
    settings = settings_with(strategy=strategy, places=3000, min_distance_km=2.64, region=region, exclude_benchmarks=None)
    places = draw(settings.sampling, 0, most_populous(200), acceptance_of(settings))
    chips = chip_footprints(chip_grids(places.lon, places.lat, 264, 10.0))
    everything = shapely.union_all([box(*zone.box) for zone in known_zones()])
    assert not shapely.intersects(everything, chips).any()
    if strategy != "grid":
        assert places.counts["excluded"] > 0


def test_a_place_just_outside_of_a_zone_is_kept_and_its_larger_chip_is_not(tmp_path):
    zone = gpd.GeoSeries([box(10.0, 50.0, 10.1, 50.1)], crs=4326)
    zone.to_file(tmp_path / "zone.geojson", driver="GeoJSON")
    lon, lat = np.array([9.97]), np.array([50.05])  # 2.1 km to the west
    small, large = (zones_of(settings_with(tmp_path, chip_size=size, exclude=["zone.geojson"])) for size in (264, 512))
    assert not small.touched(lon, lat)[0]
    assert large.touched(lon, lat)[0]


def test_where_no_zone_is_touched_exclusion_changes_nothing():
    region = [-125.0, 30.0, -116.0, 34.0]
    free, kept_out = (
        settings_with(places=300, region=region, exclude_benchmarks=names) for names in ([], ["potsdam", "vaihingen"])
    )
    cities = most_populous(200)
    one, two = (draw(settings.sampling, 3, cities, acceptance_of(settings)) for settings in (free, kept_out))
    assert one.lon.tolist() == two.lon.tolist()
    assert decisive(free) == decisive(kept_out)


def test_an_unknown_benchmark_is_an_error_that_lists_the_known():
    with pytest.raises(
        UserError, match=r"sampling.exclude_benchmarks=eurosat: the package knows the footprints of oscd, .*vaihingen"
    ):
        zones_of(settings_with(exclude_benchmarks=["eurosat"]))


def test_all_known_benchmarks_are_excluded_unless_a_profile_says_otherwise():
    assert Sampling().exclude_benchmarks is None
    assert len(zones_of(settings_with(exclude_benchmarks=None))) == len(known_zones())
    assert len(zones_of(settings_with(exclude_benchmarks=["whu_cd"]))) == 1
    assert len(zones_of(settings_with(exclude_benchmarks=[]))) == 0


def test_a_region_inside_a_zone_is_an_error_that_names_the_zones():
    settings = settings_with(places=10, region=[114.2, 30.4, 114.5, 30.7], exclude_benchmarks=["loveda"], strategy="uniform_land")
    with pytest.raises(UserError, match=r"only 0 found among \d+ candidates .* \d{5,} in an exclusion zone"):
        draw(settings.sampling, 0, most_populous(200), acceptance_of(settings))


def test_a_grid_leaves_the_zones_out_and_keeps_its_rows(tmp_path):
    gpd.GeoDataFrame(geometry=[box(2.8, 42.34, 2.81, 42.35)], crs=4326).to_parquet(tmp_path / "zone.parquet")
    wanted = {"strategy": "grid", "places": 25, "region": [2.7985, 42.3357, 2.8315, 42.3595], "min_distance_km": 0.64}
    free, kept_out = (settings_with(tmp_path, chip_size=64, **wanted, exclude=files) for files in ([], ["zone.parquet"]))
    cities = most_populous(200)
    one, two = (draw(settings.sampling, 0, cities, acceptance_of(settings)) for settings in (free, kept_out))
    assert two.counts["excluded"] == len(one.lon) - len(two.lon) > 0
    assert set(zip(two.lon, two.lat, strict=True)) < set(zip(one.lon, one.lat, strict=True))


def test_a_folder_of_georeferenced_patches_is_a_zone(real, tmp_path):
    settings = settings_with(tmp_path, exclude_benchmarks=[], exclude=[str(real / "eurosat_ms" / "data")])
    zones = zones_of(settings)
    assert len(zones) == 100
    patch = shapely.centroid(zones.shapes[0])
    assert zones.touched(np.array([patch.x]), np.array([patch.y]))[0]
    assert not zones.touched(np.array([patch.x]), np.array([patch.y + 0.5]))[0]


def test_the_stage_counts_what_was_excluded_and_is_redone_when_a_zone_changes(tmp_path):
    # a zone over half of each of the two cities of the tiny profile
    cities = most_populous(2)
    east = [box(lon, lat - 1, lon + 1, lat + 1) for lon, lat in zip(cities.lon, cities.lat, strict=True)]
    zones = gpd.GeoDataFrame(geometry=east, crs=4326)
    zones.to_parquet(tmp_path / "zones.parquet")
    settings = load_settings("tiny", home=tmp_path, sampling={"exclude": ["zones.parquet"], "sigma_km": 2.0})
    first = sample(settings)
    assert first.facts["rejected_excluded"] > 1000
    assert first.facts["zones"] == 2
    assert sample(settings).reused
    # the same polygons in another order are the same zones; another polygon is not
    zones[::-1].to_parquet(tmp_path / "zones.parquet")
    assert sample(settings).reused
    zones.set_geometry(zones.translate(0.001)).to_parquet(tmp_path / "zones.parquet")
    assert not sample(settings).reused


def test_the_wide_zones_of_a_region_are_those_its_chips_can_meet():
    shapes = np.array([box(179.0, 0, 179.99, 1), box(-179.99, 5, -179, 6), box(0, 0, 1, 1), box(-20, 0, -19, 1)], object)
    zones = Zones(shapes, 2.64)
    assert len(zones.within((-180.0, -2.0, -178.0, 2.0))) == 1  # across the antimeridian, within the chip's reach
    assert len(zones.within((178.0, -2.0, -178.0, 7.0))) == 2
    assert len(zones.within((1.01, 0.0, 1.02, 1.0))) == 1
    assert len(zones.within((1.03, 0.0, 1.05, 1.0))) == 0
    assert len(zones.within(None)) == 4


@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.floats(-180, 180), st.floats(-80, 70), st.floats(0.1, 40), st.floats(0.1, 10), st.integers(0, 2**32 - 1))
def test_zones_left_out_for_a_region_are_met_by_none_of_its_places(west, south, width, height, seed):
    east = (west + width + 180) % 360 - 180
    region = (west, south, east, south + height)
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-180, 179, 300), rng.uniform(-85, 85, 300)
    zones = Zones(shapely.box(x, y, x + 0.5, y + 0.5), 2.64)
    lon = (west + width * rng.random(500) + 180) % 360 - 180
    lat = south + height * rng.random(500)
    assert zones.touched(lon, lat).tolist() == zones.within(region).touched(lon, lat).tolist()


def test_a_folder_without_footprints_is_an_error_that_names_the_setting(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^sampling.exclude=.*empty: no file matches"):
        zones_of(settings_with(tmp_path, exclude=["empty"]))


def test_what_is_not_in_force_does_not_enter_the_fingerprint_and_what_is_does():
    plain = decisive(settings_with(exclude_benchmarks=[]))
    assert set(plain) == set(ALWAYS)
    assert decisive(settings_with(exclude_benchmarks=[], city_weight=0.5)) == {**plain, "city_weight": 0.5}
    marks = [
        decisive(settings_with(exclude_benchmarks=names, chip_size=size))["exclusion"]
        for names, size in ((None, 264), (["oscd"], 264), (["oscd"], 128))
    ]
    assert len(set(marks)) == 3


def test_every_setting_of_the_room_is_known_to_the_fingerprint():
    in_force = {"shard_by", "city_weight", "region_file", "exclude_benchmarks", "exclude", "gazetteer", "land"}
    assert set(Sampling.model_fields) == {*ALWAYS, *in_force}
