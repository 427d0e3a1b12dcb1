"""Scenes read by columns are those read item by item; a streamed index gives what one in memory gives."""

import json
import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from stac_geoparquet.arrow import parse_stac_items_to_arrow, stac_table_to_items, to_parquet

from caco_assets.core.errors import UserError
from caco_assets.imagery.catalogs.parquet import ParquetCatalog
from caco_assets.imagery.catalogs.static import StaticCatalog
from caco_assets.imagery.planning.plan import Sites, write_plan
from caco_assets.imagery.planning.ranking import Limits
from caco_assets.imagery.scenes.hrefs import pack, unpack
from caco_assets.imagery.scenes.periods import period_windows
from caco_assets.imagery.scenes.scene_table import in_order, inside, scenes_in, scenes_of
from caco_assets.imagery.scenes.stac_geoparquet import batches, scenes_from_columns

BANDS = ("B02", "B03", "B04")
START = datetime(2021, 11, 1, tzinfo=UTC)


def real_items(real, *patterns: str) -> list[dict]:
    found = []
    for pattern in patterns:
        for path in sorted((real / "stac_items").glob(pattern)):
            content = json.loads(path.read_text())
            found += content.get("features", [content])
    return found


def as_parquet(path, items: list[dict]):
    to_parquet(parse_stac_items_to_arrow(json.loads(json.dumps(items))), path)
    return path


def read_both_ways(path, bands=BANDS):
    by_columns: dict[str, str] = {}
    by_items: dict[str, str] = {}
    fast = in_order(scenes_from_columns(pa.concat_tables(batches(path, 3)), bands, by_columns))
    slow = scenes_of(stac_table_to_items(pq.read_table(path)), bands, by_items)
    return (fast, by_columns), (slow, by_items)


def assert_same(one, other) -> None:
    assert one[1] == other[1]
    assert one[0].drop(["geometry"]).equals(other[0].drop(["geometry"]))
    for left, right in zip(one[0]["geometry"].to_pylist(), other[0]["geometry"].to_pylist(), strict=True):
        assert shapely.equals(shapely.from_wkb(left), shapely.from_wkb(right))


@pytest.mark.parametrize("patterns", [["planetary*"], ["S2*"], ["earthsearch*"]], ids=["planetary_computer", "esa", "earth_search"])
def test_real_items_are_read_by_columns_as_one_by_one(real, tmp_path, patterns):
    items = real_items(real, *patterns)
    for item in items:
        item["properties"].pop("proj:centroid", None)
        item["stac_version"] = "1.0.0"
    fast, slow = read_both_ways(as_parquet(tmp_path / "items.parquet", items), ("B02", "B03", "B04", "B8A"))
    assert fast[0].num_rows + len(fast[1]) == len({item["id"] for item in items})
    assert_same(fast, slow)


def made_up_item(number: int, rng: random.Random) -> dict:
    """An item as some provider might word it: keys, raster facts, baseline and their absence vary."""
    names = {"B02": rng.choice(["B02", "blue", "B02_10m"]), "B03": "B03", "B04": rng.choice(["B04", "red"])}
    host = rng.choice(["https://a.example/x", "s3://b", "./", "https://ü.example", 'https://a.example/"q"'])
    assets = {}
    for band, key in names.items():
        folder = rng.choice(["", "R10m/"]) if rng.random() < 0.3 else ""
        asset = {"href": f"{host}/{number}/{folder}{band}.tif"}
        if rng.random() < 0.8:
            asset["raster:bands"] = [{"scale": 1e-4, "offset": rng.choice([0.0, -0.1, -0.7]), "nodata": 0}]
        assets[key] = asset
    if rng.random() < 0.2:
        assets.pop(names["B04"])
    if rng.random() < 0.5:
        assets["SCL"] = {"href": f"{host}/{number}/SCL.tif"}
    west = rng.choice([2.0, 179.5])
    ring = [[west, 42], [west + 1 if west < 179 else -179.5, 42], [west + 1 if west < 179 else -179.5, 43], [west, 43], [west, 42]]
    properties = {"datetime": (START + timedelta(days=rng.randrange(400))).isoformat().replace("+00:00", "Z")}
    options = {
        "eo:cloud_cover": rng.choice([0.0, 12.5, None]), "proj:code": rng.choice(["EPSG:32631", None]),
        "s2:processing_baseline": rng.choice(["02.14", "05.00", "odd", None]),
        "s2:product_type": rng.choice(["S2MSI2A", "S2MSI2A", "S2MSI1C"]),
        "earthsearch:boa_offset_applied": rng.choice([True, False, None]),
    }  # fmt: skip
    properties |= {key: value for key, value in options.items() if value is not None}
    name = rng.choice(["S2A", "S2A_MSIL2A_N0400_x", "S2A_MSIL1C"])
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {
        "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [], "id": f"{name}_{number}", "collection": "c", "links": [],
        "geometry": geometry, "bbox": [min(p[0] for p in ring), 42, max(p[0] for p in ring), 43], "properties": properties,
        "assets": assets,
    }  # fmt: skip


@given(st.integers(0, 10**6), st.integers(1, 25))
def test_made_up_items_are_read_by_columns_as_one_by_one(tmp_path_factory, seed, count):
    rng = random.Random(seed)
    items = [made_up_item(number, rng) for number in range(count)]
    path = as_parquet(tmp_path_factory.mktemp("items") / "items.parquet", items)
    by_columns: dict[str, str] = {}
    fast = in_order(scenes_from_columns(pa.concat_tables(batches(path, 7)), BANDS, by_columns))
    by_items: dict[str, str] = {}
    slow = scenes_of(items, BANDS, by_items)
    assert_same((fast, by_columns), (slow, by_items))


def test_hrefs_of_one_folder_on_the_web_name_it_once():
    web = {"B02": "https://a.example/s/B02.tif", "SCL": "https://a.example/s/SCL.tif"}
    assert pack(web) == '{"":"https://a.example/s/","B02":"B02.tif","SCL":"SCL.tif"}'
    deep = {"B02": "s3://e/p/R10m/B02.jp2", "SCL": "s3://e/p/R20m/SCL.jp2#band=1"}
    assert pack(deep) == '{"":"s3://e/p/","B02":"R10m/B02.jp2","SCL":"R20m/SCL.jp2#band=1"}'
    local = {"B02": "./x/B02.tif", "SCL": "./x/SCL.tif"}
    assert pack(local) == json.dumps(local, separators=(",", ":"))
    far = {"B02": "https://a.example/s/B02.tif", "SCL": "https://b.example/s/SCL.tif"}
    for hrefs in (web, deep, local, far):
        assert unpack(pack(hrefs)) == hrefs


def index_of(path, tiles: int, dates: int, order: str):
    """Items of a row of tiles on many dates."""
    rng = random.Random(3)
    items = []
    for tile in range(tiles):
        for date in range(dates):
            item = made_up_item(tile * dates + date, rng)
            west = 2.0 + 0.9 * tile
            ring = [[west, 42], [west + 1, 42], [west + 1, 43], [west, 43], [west, 42]]
            item |= {
                "id": f"T{tile}_{date:03d}",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "bbox": [west, 42, west + 1, 43],
            }
            item["properties"]["datetime"] = (START + timedelta(days=date * 1800 / dates)).strftime("%Y-%m-%dT%H:%M:%SZ")
            items.append(item)
    if order == "time":
        items.sort(key=lambda item: item["properties"]["datetime"])
    return as_parquet(path, items)


@pytest.mark.parametrize("order", ["time", "tile"])
def test_a_streamed_index_gives_the_plan_of_one_in_memory(tmp_path, order, monkeypatch):
    path = index_of(tmp_path / "items.parquet", 8, 60, order)
    rng = np.random.default_rng(0)
    places = [f"L{number:07d}" for number in range(300)], rng.uniform(2.1, 9.0, 300), rng.uniform(42.1, 42.9, 300)
    sites = Sites.of(*places, np.zeros(300, np.int32), 64, 10)
    windows = period_windows("2026-10", 4, 12, 3)
    held = StaticCatalog.open(path, BANDS)
    assert isinstance(held, StaticCatalog)
    monkeypatch.setattr("caco_assets.imagery.catalogs.static.HELD_ROWS", 10)
    monkeypatch.setattr("caco_assets.imagery.catalogs.parquet.BATCH_ROWS", 37)
    monkeypatch.setattr("caco_assets.imagery.catalogs.parquet.BOXES_PER_BIN", 2)
    streamed = StaticCatalog.open(path, BANDS, tmp_path / "scratch")
    assert isinstance(streamed, ParquetCatalog)
    facts = []
    for name, catalog in (("held", held), ("streamed", streamed)):
        facts.append(write_plan(tmp_path / name, sites, catalog, windows, Limits(90.0, 8), tmp_path / "planning"))
    assert facts[0] == facts[1]
    assert facts[0]["candidates"] > 1000
    assert (tmp_path / "held").read_bytes() == (tmp_path / "streamed").read_bytes()
    assert not list((tmp_path / "scratch").iterdir())


def test_a_streamed_index_answers_a_search_across_the_antimeridian(tmp_path):
    rng = random.Random(1)
    items = []
    while len(items) < 20:
        item = made_up_item(len(items), rng)
        if item["geometry"]["coordinates"][0][0][0] > 179:
            items.append(item)
    path, always = as_parquet(tmp_path / "items.parquet", items), (START, START + timedelta(days=999))
    streamed, held = ParquetCatalog(path, BANDS, tmp_path), StaticCatalog.open(path, BANDS)
    found = streamed.search((179.9, 42.2, -179.9, 42.3), always)
    assert found == held.search((179.9, 42.2, -179.9, 42.3), always)
    assert len(found) == scenes_of(items, BANDS, {}).num_rows > 3
    assert streamed.search((0.0, 42.2, 1.0, 42.3), always) == []
    assert streamed.refused == held.refused
    assert [scene.item_id for scene in scenes_in(scenes_of(items, BANDS, {}))] == [scene.item_id for scene in found]


def test_row_groups_without_a_date_of_the_periods_are_passed_over(tmp_path):
    table = pq.read_table(index_of(tmp_path / "items.parquet", 2, 60, "time"))
    pq.write_table(table, tmp_path / "groups.parquet", row_group_size=10)
    first, second = START + timedelta(days=100), START + timedelta(days=1000)
    spans = [(first, first + timedelta(days=100)), (second, second + timedelta(days=1))]
    read = pa.concat_tables(batches(tmp_path / "groups.parquet", 1000, spans))
    assert 0 < read.num_rows <= 40
    assert read.num_rows < pa.concat_tables(batches(tmp_path / "groups.parquet", 1000)).num_rows == 120
    kept = inside(table["datetime"].cast(pa.timestamp("us", tz="UTC")), spans)
    assert set(table.filter(pa.array(kept))["id"].to_pylist()) <= set(read["id"].to_pylist())


def test_a_file_that_is_no_index_is_an_error_of_one_line(tmp_path):
    (tmp_path / "items.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="not readable as stac-geoparquet"):
        StaticCatalog.open(tmp_path, BANDS)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="not readable as stac-geoparquet"):
        StaticCatalog.open(tmp_path / "other.parquet", BANDS)
