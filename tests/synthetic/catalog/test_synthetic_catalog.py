"""The catalog as a provider would serve it, and the truth beside it."""

from datetime import UTC, datetime
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
from rio_cogeo import cog_validate

from caco_assets.core.errors import UserError
from caco_assets.core.products import produce
from caco_assets.imagery.geometry.chip_grid import chip_grids
from caco_assets.observability.logs import log_to
from caco_assets.sampling.sphere import destination
from caco_assets.settings import Settings, load_settings
from caco_assets.synthetic.catalog import scene_plan
from caco_assets.synthetic.catalog.scene_writer import mgrs_square
from caco_assets.synthetic.earth.earth import GSD, Window
from caco_assets.synthetic.stage import build_catalog

LON = np.array([2.960, 2.975, 2.955])
LAT = np.array([42.270, 42.275, 42.262])


def write_locations(settings: Settings) -> None:
    def make(path: Path) -> dict[str, int]:
        columns = {
            "location_id": [f"L{k:07d}" for k in range(len(LON))],
            "lon": LON,
            "lat": LAT,
            "city": ["Figueres"] * 3,
            "country": ["ES"] * 3,
            "distance_km": [0.9, 1.1, 1.0],
        }
        pq.write_table(pa.table(columns), path)
        return {"places": len(LON)}

    produce("locations", settings.paths.locations, records=settings.paths.records, recipe="test", inputs={}, make=make)


def small(home: Path) -> Settings:
    return load_settings(
        "tiny",
        home=home,
        vintage="2025-06",
        imagery={"source": {"kind": "synthetic", "scenes_per_season": 1, "changed_share": 1.0, "calendar": None}},
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = small(tmp_path_factory.mktemp("catalog"))
    write_locations(settings)
    build_catalog(settings)
    return settings


@pytest.fixture(scope="module")
def items(built: Settings) -> list[pystac.Item]:
    return list(pystac.Catalog.from_file(str(built.paths.catalog / "catalog.json")).get_items(recursive=True))


def test_every_document_obeys_the_core_schema_of_stac(built: Settings, items: list[pystac.Item]) -> None:
    from pystac.validation import JsonSchemaSTACValidator

    catalog = pystac.Catalog.from_file(str(built.paths.catalog / "catalog.json"))
    validator = JsonSchemaSTACValidator()
    for thing in (catalog, *catalog.get_children(), *items):
        validator.validate_core(thing.to_dict(), thing.STAC_OBJECT_TYPE, "1.1.0")


def test_each_season_of_each_period_has_its_scenes(built: Settings, items: list[pystac.Item]) -> None:
    assert len(items) == 2 * built.imagery.seasons
    assert {item.datetime.year for item in items if item.datetime} <= {2020, 2021, 2024, 2025}


def test_bands_have_their_native_size_and_lie_on_the_tile_grid(items: list[pystac.Item]) -> None:
    item = items[0]
    sides = set()
    for name, gsd in {**GSD, "SCL": 20}.items():
        with rasterio.open(item.assets[name].get_absolute_href()) as source:
            assert source.res == (gsd, gsd)
            assert source.dtypes[0] == ("uint8" if name == "SCL" else "uint16")
            assert source.nodata == 0
            assert source.transform.c % 60 == 0
            assert source.transform.f % 60 == 0
            assert f"EPSG:{source.crs.to_epsg()}" == item.properties["proj:code"] == "EPSG:32631"
            assert [source.height, source.width] == item.assets[name].extra_fields["proj:shape"]
            sides.add((source.width * gsd, source.height * gsd))
    assert len(sides) == 1


def test_every_file_is_a_cloud_optimised_geotiff(items: list[pystac.Item]) -> None:
    for asset in items[0].assets.values():
        valid, errors, _ = cog_validate(asset.get_absolute_href(), quiet=True)
        assert valid, errors


def test_numbers_and_metadata_change_to_baseline_0400_on_the_same_day(items: list[pystac.Item]) -> None:
    switch = datetime(2022, 1, 25, tzinfo=UTC)
    for item in items:
        assert item.datetime is not None
        facts = item.assets["B12"].extra_fields["raster:bands"][0]
        new = item.datetime >= switch
        assert facts["offset"] == (-0.1 if new else 0.0)
        assert (item.properties["s2:processing_baseline"] >= "04.00") == new
        with rasterio.open(item.assets["B12"].get_absolute_href()) as source:
            data = source.read(1)
        assert (data[data > 0].min() >= 900) == new


def test_cloud_cover_is_what_the_scene_classification_says(items: list[pystac.Item]) -> None:
    for item in items:
        with rasterio.open(item.assets["SCL"].get_absolute_href()) as source:
            scl = source.read(1)
        assert item.properties["eo:cloud_cover"] == pytest.approx(100 * np.isin(scl, (8, 9, 10)).sum() / (scl > 0).sum(), abs=1e-3)


def test_the_index_names_every_item_and_its_files_from_its_own_folder(built: Settings, items: list[pystac.Item]) -> None:
    index = geopandas.read_parquet(built.paths.catalog / "items.parquet")
    assert sorted(index["id"]) == sorted(item.id for item in items)
    for assets in index["assets"]:
        assert (built.paths.catalog / assets["B02"]["href"]).is_file()


def test_each_place_has_its_truth_on_its_own_chip_grid(built: Settings) -> None:
    truth = pq.read_table(built.paths.catalog / "truth" / "change.parquet").to_pylist()
    assert [row["location_id"] for row in truth] == ["L0000000", "L0000001", "L0000002"]
    assert sum(row["changed"] for row in truth) >= 2
    for row in truth:
        with np.load(built.paths.catalog / "truth" / row["mask"]) as masks:
            assert masks["change"].shape == (64, 64)
            assert row["fraction"] == pytest.approx(masks["change"].mean(), abs=1e-6)
            np.testing.assert_array_equal(masks["change"], masks["early"] != masks["late"])
        assert row["changed"] == (row["fraction"] >= 0.01) == bool(row["kind"])


def test_every_chip_lies_inside_its_scene(built: Settings, items: list[pystac.Item]) -> None:
    left, bottom, right, top = items[0].properties["proj:bbox"]
    for grid in chip_grids(LON, LAT, built.imagery.chip_size, built.imagery.resolution):
        west, south, east, north = grid.bounds
        assert left <= west < east <= right
        assert bottom <= south < north <= top


def test_an_interrupted_catalog_keeps_its_finished_scenes(tmp_path: Path, built: Settings) -> None:
    settings = small(tmp_path)
    write_locations(settings)

    def stop(_level: int, _line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), log_to(stop):
        build_catalog(settings)
    partial = next(settings.paths.root.glob(".catalog.partial-*"))
    before = {path.name: path.stat().st_mtime_ns for path in partial.rglob("*.tif")}
    assert before
    product = build_catalog(settings)
    after = {path.name: path.stat().st_mtime_ns for path in settings.paths.catalog.rglob("*.tif")}
    assert after == before
    assert product.content_hash == build_catalog(built).content_hash


def test_a_profile_with_its_own_imagery_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="source kind synthetic"):
        build_catalog(load_settings("boadella", home=tmp_path))


def test_places_too_far_apart_to_draw_are_refused() -> None:
    with pytest.raises(ValueError, match="span"):
        scene_plan.window_around(32631, [(0.0, 0.0, 640.0), (90_000.0, 0.0, 640.0)])


def test_the_city_centre_is_found_from_the_places_distances() -> None:
    rng = np.random.default_rng(0)
    bearing, reach = rng.random(8) * 2 * np.pi, 0.3 + 2 * rng.random(8)
    lon, lat = destination(np.full(8, 179.995), np.full(8, -17.7), bearing, reach)
    found = scene_plan.centre_of(lon, lat, np.round(reach, 3))
    assert found == pytest.approx((179.995, -17.7), abs=2e-4)


@pytest.mark.parametrize(
    ("epsg", "lat", "east", "north", "square"),
    [
        (32631, 42.27, 496_700, 4_679_900, "31TDG"),
        (32633, 52.5, 391_000, 5_820_000, "33UUU"),
        (32721, -34.6, 371_600, 6_170_400, "21HUB"),
    ],
)
def test_the_military_grid_square_is_the_one_on_the_map(epsg: int, lat: float, east: float, north: float, square: str) -> None:
    west, top = east // 60 * 60, north // 60 * 60
    assert mgrs_square(lat, Window(epsg, float(west), float(top), 6, 6)) == square
