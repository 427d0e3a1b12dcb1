"""The user's own gazetteer, land and region."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
from shapely.geometry import Point, Polygon, box

from caco_assets.core.errors import UserError
from caco_assets.sampling.acceptance import acceptance_of
from caco_assets.sampling.fingerprint_inputs import decisive, tables
from caco_assets.sampling.gazetteer import cities_of, most_populous, rank, read_gazetteer
from caco_assets.sampling.land import is_land
from caco_assets.sampling.sampler import draw
from caco_assets.sampling.stage import sample
from caco_assets.settings import load_settings


def silent(_line):
    pass


def geonames_line(city_id, name, lat, lon, country, population):
    cells = [str(city_id), name, name, "", str(lat), str(lon), "P", "PPL", country, *[""] * 5, str(population), "", "", "", ""]
    assert len(cells) == 19
    return "\t".join(cells)


@pytest.fixture
def table(tmp_path):
    """The 300 largest cities, written as GeoNames writes its own tables, smallest first."""
    cities = most_populous(300)
    rows = zip(cities.city_id, cities.city, cities.lat, cities.lon, cities.country, cities.population, strict=True)
    path = tmp_path / "cities15000.txt"
    path.write_text("\n".join(geonames_line(*row) for row in reversed(list(rows))) + "\n", encoding="utf-8")
    return path


def test_a_geonames_table_gives_the_same_cities_as_the_package_s_own(table):
    ours, theirs = most_populous(200), rank(read_gazetteer(table), 200)
    for name in ("city_id", "country", "population", "lon", "lat"):
        assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()


def test_the_same_cities_from_a_file_give_the_same_places(table):
    wanted = {"cities": 200, "places": 300, "sigma_km": 50.0}
    own, theirs = (load_settings("tiny", sampling={**wanted, "gazetteer": path}) for path in (None, str(table)))
    places = [draw(settings.sampling, 0, cities_of(settings), acceptance_of(settings)).lon.tolist() for settings in (own, theirs)]
    assert places[0] == places[1]


def test_natural_earth_s_populated_places_are_a_gazetteer(real):
    cities = rank(read_gazetteer(real / "natural_earth" / "ne_50m_populated_places_simple.json"), 1000)
    assert cities.city[0] == "Tokyo"
    assert (np.diff(cities.population) <= 0).all()
    assert len(set(cities.city_id.tolist())) == 1000
    assert all(len(code) in (0, 2) and code.upper() == code for code in cities.country)
    keys = list(zip(cities.city, cities.country, strict=True))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "1\tParis\t48.8\n", "line 1 is not a row of a GeoNames table .3 columns instead of 19"),
        ("a.txt", geonames_line(1, "Paris", "north", 2.3, "FR", 5), "line 1 is not a row of a GeoNames table"),
        ("a.txt", geonames_line(1, "Paris", 48.8, 2.3, "FR", 0), "no city with a name, a position and inhabitants"),
        ("a.geojson", "hello", r"not readable \(a GeoNames table ends in .txt\)"),
    ],
)
def test_a_table_that_is_no_gazetteer_is_an_error_that_says_where(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"sampling.gazetteer=.*{name}: .*{message}"):
        read_gazetteer(tmp_path / name)


def test_points_without_population_are_an_error_that_names_the_columns(tmp_path):
    gpd.GeoDataFrame({"NAME": ["Paris"]}, geometry=[Point(2, 48)], crs=4326).to_file(tmp_path / "p.geojson", driver="GeoJSON")
    with pytest.raises(UserError, match="pop_max, iso_a2 missing"):
        read_gazetteer(tmp_path / "p.geojson")
    with pytest.raises(UserError, match="no such file"):
        read_gazetteer(tmp_path / "absent.txt")


def test_land_of_the_user_s_decides_what_is_ocean(tmp_path, real):
    path = real / "natural_earth" / "ne_50m_land.json"
    settings = load_settings("tiny", home=tmp_path, sampling={"places": 500, "cities": 200, "sigma_km": 50.0, "land": str(path)})
    acceptance = acceptance_of(settings)
    places = draw(settings.sampling, 0, most_populous(200), acceptance)
    assert acceptance.land(places.lon, places.lat).all()
    assert not is_land(places.lon, places.lat).all()  # two masks never agree on every shore
    assert is_land(places.lon, places.lat).mean() > 0.98


def test_places_lie_inside_the_polygons_of_the_region(tmp_path):
    triangle = Polygon([(0, 42), (12, 42), (6, 52)])
    gpd.GeoSeries([triangle], crs=4326).to_file(tmp_path / "region.geojson", driver="GeoJSON")
    for strategy in ("caco", "gaussian_cities", "uniform_land", "grid"):
        wanted = {"places": 200, "cities": 2000, "sigma_km": 50.0, "strategy": strategy, "region_file": "region.geojson"}
        settings = load_settings("tiny", home=tmp_path, sampling=wanted)
        places = draw(settings.sampling, 0, most_populous(2000), acceptance_of(settings))
        assert all(triangle.intersects(Point(xy)) for xy in zip(places.lon, places.lat, strict=True))
        assert len(places.lon) == 200
        assert places.counts["outside_region"] > 0
    both = load_settings("tiny", home=tmp_path, sampling={**wanted, "region": [0.0, 42.0, 6.0, 45.0]})
    places = draw(both.sampling, 0, most_populous(200), acceptance_of(both))
    assert all(triangle.intersection(box(0, 42, 6, 45)).intersects(Point(xy)) for xy in zip(places.lon, places.lat, strict=True))


def test_files_enter_the_fingerprint_by_content_and_not_by_path(table, tmp_path):
    gpd.GeoSeries([box(0, 0, 1, 1)], crs=4326).to_file(tmp_path / "a.geojson", driver="GeoJSON")
    (tmp_path / "sub").mkdir()
    for name in ("a.geojson", table.name):
        (tmp_path / "sub" / name).write_bytes((tmp_path / name).read_bytes())

    def marks(folder):
        names = {"region_file": "a.geojson", "exclude": ["a.geojson"], "land": "a.geojson", "gazetteer": table.name}
        settings = load_settings("tiny", home=folder, sampling=names)
        return decisive(settings), tables(settings)

    assert marks(tmp_path) == marks(tmp_path / "sub")
    assert str(tmp_path) not in str(marks(tmp_path))


def test_a_missing_file_is_an_error_before_any_work(tmp_path):
    for name in ("region_file", "land", "gazetteer"):
        with pytest.raises(UserError, match=rf"sampling.{name}=.*absent: no such file"):
            sample(load_settings("tiny", home=tmp_path, sampling={name: "absent"}))
    with pytest.raises(UserError, match=r"sampling.exclude=.*absent: no such file"):
        sample(load_settings("tiny", home=tmp_path, sampling={"exclude": ["absent"]}))
