import hashlib
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from caco_assets.core.errors import UserError
from caco_assets.resources.dvc.params import stage_settings
from caco_assets.sampling.acceptance import acceptance_of
from caco_assets.sampling.gazetteer import most_populous
from caco_assets.sampling.land import coarse_land, is_land
from caco_assets.sampling.locations import shards_of
from caco_assets.sampling.map import world_map
from caco_assets.sampling.sampler import draw
from caco_assets.sampling.sphere import distance_km, unit_vectors
from caco_assets.sampling.stage import sample
from caco_assets.settings import load_settings

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cities():
    return most_populous(200)


def places_of(cities, seed=0, **sampling):
    """Places of these settings; what is not named has the settings' own default."""
    defaults = {"strategy": "caco", "sigma_km": 50.0, "min_distance_km": 2.64, "cities": 200, "exclude_benchmarks": []}
    settings = load_settings("tiny", sampling={**defaults, **sampling})
    return draw(settings.sampling, seed, cities, acceptance_of(settings))


def nearest_km(lon, lat):
    from scipy.spatial import KDTree

    _, index = KDTree(unit_vectors(lon, lat)).query(unit_vectors(lon, lat), k=2)
    other = index[:, 1]
    return distance_km(lon, lat, lon[other], lat[other])


def test_cities_are_ranked_by_population_and_have_names_of_their_own():
    cities = most_populous(10_000)
    assert (np.diff(cities.population) <= 0).all()
    assert cities.city[0] == "Shanghai"
    keys = list(zip(cities.city, cities.country, strict=True))
    assert len(set(keys)) == len(keys)


def test_growing_the_number_of_cities_keeps_names_and_order():
    few, many = most_populous(500), most_populous(3000)
    assert few.city.tolist() == many.city[:500].tolist()
    assert few.city_id.tolist() == many.city_id[:500].tolist()


def test_asking_for_more_cities_than_there_are_names_both_numbers():
    with pytest.raises(UserError, match=r"sampling.cities=999999: the gazetteer has \d+ cities"):
        most_populous(999_999)


def test_land_and_ocean():
    lon, lat = np.array([2.35, -30.0, 139.7]), np.array([48.85, 30.0, 35.7])
    before = lon.copy()
    assert is_land(lon, lat).tolist() == [True, False, True]
    assert (lon == before).all()
    assert coarse_land(600).mean() == pytest.approx(0.34, abs=0.05)


STRATEGIES = ("caco", "gaussian_cities", "uniform_land", "grid")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("benchmarks", [[], None])
@hypothesis_settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), few=st.integers(1, 300), more=st.integers(1, 700))
def test_growing_places_keeps_the_first_exactly(cities, strategy, benchmarks, seed, few, more):
    wanted = {"strategy": strategy, "exclude_benchmarks": benchmarks, "city_weight": 0.5 if seed % 2 else 0.0}
    small = places_of(cities, seed=seed, places=few, **wanted)
    large = places_of(cities, seed=seed, places=few + more, **wanted)
    assert len(small.lon) == few
    for name in ("lon", "lat", "city_index", "distance_km"):
        assert getattr(small, name).tolist() == getattr(large, name)[:few].tolist()


def test_caco_places_are_on_land_and_apart(cities):
    places = places_of(cities, places=3000, sigma_km=30)
    assert is_land(places.lon, places.lat).all()
    assert nearest_km(places.lon, places.lat).min() >= 2.64
    assert places.counts["ocean"] > 0
    assert places.counts["too_close"] > 0


def test_gaussian_cities_keep_ocean_and_overlap_as_seco_does(cities):
    places = places_of(cities, places=3000, sigma_km=30, strategy="gaussian_cities")
    assert not is_land(places.lon, places.lat).all()
    assert nearest_km(places.lon, places.lat).min() < 1.0
    assert places.counts == {"drawn": 16384, "outside_region": 0, "ocean": 0, "excluded": 0, "too_close": 0}


def test_uniform_land_covers_the_continents(cities):
    places = places_of(cities, places=2000, strategy="uniform_land", min_distance_km=20)
    assert is_land(places.lon, places.lat).all()
    assert nearest_km(places.lon, places.lat).min() >= 20
    assert np.histogram(places.lon, bins=6, range=(-180, 180))[0].min() > 30


def test_the_region_keeps_only_places_inside(cities):
    region = (5.0, 45.0, 15.0, 55.0)
    places = places_of(cities, places=200, region=region)
    assert ((places.lon >= 5) & (places.lon <= 15) & (places.lat >= 45) & (places.lat <= 55)).all()


def test_a_region_far_from_every_city_is_an_error_that_says_what_to_do(cities):
    with pytest.raises(UserError, match=r"sampling.region=.*none of the 200 cities lies within 400 km"):
        places_of(cities, region=(-140, -50, -139, -49))


def test_a_region_upside_down_is_an_error(cities):
    with pytest.raises(UserError, match="south below north"):
        places_of(cities, region=(0, 50, 1, 49))


def test_places_that_do_not_fit_end_with_counts_and_advice(cities):
    with pytest.raises(UserError, match=r"sampling.places=500: only \d+ found .*closer than 50 km.*lower sampling.places"):
        places_of(cities, places=500, sigma_km=1, min_distance_km=50)


def test_the_grid_is_regular_row_major_and_inside_the_region(cities):
    wanted = {"strategy": "grid", "region": (2.0, 42.0, 2.5, 42.3), "min_distance_km": 5}
    places = places_of(cities, places=1000, **wanted)
    lon, lat = places.lon, places.lat
    assert (np.diff(lat) <= 0).all()
    assert ((lon >= 2) & (lon <= 2.5) & (lat >= 42) & (lat <= 42.3)).all()
    assert nearest_km(lon, lat) == pytest.approx(np.full(len(lon), 5.0), abs=0.01)
    assert places_of(cities, places=7, **wanted).lon.tolist() == lon[:7].tolist()


def test_a_heavier_weight_of_population_moves_places_to_larger_cities(cities):
    by_weight = [cities.population[places_of(cities, places=2000, city_weight=weight).city_index].mean() for weight in (0, 0.5, 1)]
    assert by_weight[0] < by_weight[1] < by_weight[2]


def test_a_grid_without_spacing_is_an_error(cities):
    with pytest.raises(UserError, match="strategy grid needs a spacing"):
        places_of(cities, strategy="grid", min_distance_km=0)


def test_the_stage_writes_the_contract_and_is_reused(settings):
    product = sample(settings)
    frame = gpd.read_parquet(product.path)
    assert frame.columns.tolist() == [
        "location_id", "lon", "lat", "city", "city_id", "country", "population", "distance_km", "shard", "geometry",
    ]  # fmt: skip
    assert frame.crs.to_epsg() == 4326
    assert frame.location_id.tolist() == [f"L{index:07d}" for index in range(12)]
    assert frame["shard"].dtype == np.int32
    assert frame["shard"].tolist() == [0] * 6 + [1] * 6
    assert (frame.lon == frame.lon.round(6)).all()
    assert (frame.geometry.x == frame.lon).all()
    assert product.facts["shards"] == 2
    assert sample(settings).reused
    assert world_map(product.path).startswith(b"\x89PNG")


def test_shards_of_neighbours_are_whole_and_small(cities):
    places = places_of(cities, places=2000, strategy="gaussian_cities")
    points = unit_vectors(places.lon, places.lat)

    def reach(shard_by):
        """Mean distance from a place to the middle of its shard, radians."""
        shard = shards_of(places.lon, places.lat, 50, shard_by)
        assert np.bincount(shard).tolist() == [50] * 40
        middles = np.stack([points[shard == number].mean(axis=0) for number in range(40)])
        return np.linalg.norm(points - middles[shard], axis=1).mean()

    assert reach("nearby") < 0.2 * reach("arrival")


def test_shards_of_neighbours_pass_the_checks_and_are_another_product(settings):
    from caco_assets.validation.facts.locations import locations as facts_of

    by_arrival = sample(settings)
    nearby = settings.model_copy(update={"sampling": settings.sampling.model_copy(update={"shard_by": "nearby"})})
    product = sample(nearby)
    assert product.fingerprint != by_arrival.fingerprint
    frame = facts_of(nearby)[0].frame
    assert (frame["shard_gap"] == 0).all()
    assert sorted(frame["shard"]) == [0] * 6 + [1] * 6


def test_the_same_settings_give_the_same_bytes(settings, tmp_path):
    first = sample(settings)
    second = sample(load_settings("tiny", home=tmp_path / "elsewhere"))
    assert first.content_hash == second.content_hash
    assert world_map(first.path) == world_map(second.path)


def test_the_embedded_profile_finds_its_places(tmp_path):
    product = sample(load_settings("embedded", home=tmp_path))
    assert product.facts["places"] == 384
    assert product.facts["cities"] == 24
    # homes that have this profile's data keep it as long as these bytes do not change
    assert product.content_hash == "f88ec925d349a98590f26f4df3a9ce62"
    settings = json.dumps(stage_settings(load_settings("embedded", home=tmp_path))["locations"], indent=1, sort_keys=True) + "\n"
    assert hashlib.md5(settings.encode()).hexdigest() == "842d5039c5aa883cf776628c6f182fcb"
