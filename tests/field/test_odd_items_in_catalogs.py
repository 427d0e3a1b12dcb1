"""Catalogs of all forms (linked files, Parquet in memory, Parquet streamed, STAC API) with some items that cannot be used."""

import copy
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import reply_json
from shapely.geometry import shape

from caco_assets.core.errors import UserError
from caco_assets.imagery.catalogs import static
from caco_assets.imagery.catalogs.json_client import JsonClient
from caco_assets.imagery.catalogs.parquet import ParquetCatalog
from caco_assets.imagery.catalogs.stac_api import StacApi
from caco_assets.imagery.catalogs.static import StaticCatalog
from caco_assets.imagery.on_record import plan
from caco_assets.imagery.scenes.scene_table import in_order, scenes_of
from caco_assets.imagery.scenes.stac_geoparquet import scenes_from_columns
from caco_assets.settings import StacApiSource

YEAR = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC))
BOX = (2.0, 42.0, 2.5, 42.5)
RING = [[2, 42], [3, 42], [3, 43], [2, 43], [2, 42]]


def item(name: str, **properties) -> dict:
    asset = {"href": f"https://a.example/{name}/B02.tif", "raster:bands": [{"scale": 1e-4, "offset": 0.0, "nodata": 0.0}]}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "c", "links": [],
        "geometry": {"type": "Polygon", "coordinates": [RING]},
        "properties": {"datetime": "2020-07-01T10:00:00Z", **properties}, "assets": {"B02": asset},
    }  # fmt: skip


def linked(folder: Path, items: list[dict]) -> Path:
    folder.mkdir()
    for number, one in enumerate(items):
        (folder / f"{number}.json").write_text(json.dumps(one))
    links = [{"rel": "item", "href": f"./{number}.json"} for number in range(len(items))]
    (folder / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "c", "links": links}))
    return folder


def table_of(items: list[dict]) -> pa.Table:
    """The items as columns, each of the first type that holds all of its values."""
    names = sorted({name for one in items for name in one["properties"]})
    columns: dict[str, pa.Array] = {"id": pa.array([one["id"] for one in items])}
    columns["geometry"] = pa.array([one["geometry"] and shape(one["geometry"]).wkb for one in items], pa.binary())
    columns["assets"] = pa.array([one["assets"] for one in items])
    for name in names:
        values = [one["properties"].get(name) for one in items]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[name] = pa.array([None if value is None else str(value) for value in values])
    return pa.table(columns)


ODD = {
    "a projection without a number": item("odd", **{"proj:code": "EPSG:None"}),
    "a projection that is an address": item("odd", **{"proj:epsg": "https://a.example/32631"}),
    "a cloud cover that is an address": item("odd", **{"eo:cloud_cover": "https://a.example/clouds"}),
    "an endless cloud cover": item("odd", **{"eo:cloud_cover": float("inf")}),
    "a date that is none": item("odd", datetime="yesterday"),
    "no date": item("odd", datetime=None),
    "a footprint in metres": {
        **item("odd"),
        "geometry": {"type": "Polygon", "coordinates": [[[5e5, 4e6], [5e5, 5e6], [6e5, 5e6], [5e5, 4e6]]]},
    },
    "no footprint": {**item("odd"), "geometry": None},
    "an address with a line break": {**item("odd"), "assets": {"B02": {"href": "https://a.example/\nB02.tif"}}},
    "no address": {**item("odd", **{"s2:processing_baseline": "05.00"}), "assets": {"B02": {"href": None}}},
    "a scale that is none": {
        **item("odd"), "assets": {"B02": {"href": "https://a.example/B02.tif", "raster:bands": [{"scale": float("inf")}]}},
    },
    "no band": {**item("odd"), "assets": {"B03": {"href": "https://a.example/B03.tif"}}},
    "no name": {**item("odd"), "id": None},
}  # fmt: skip
USABLE = {"a projection without a number"}
"""Read as a projection without a code, which the files themselves name."""


@pytest.mark.parametrize("kind", ODD)
def test_one_odd_item_is_refused_alike_by_every_form_of_catalog_and_the_others_serve(tmp_path, monkeypatch, stac_api_of, kind):
    items = [item("first"), ODD[kind], item("last", **{"eo:cloud_cover": 10.0})]
    pq.write_table(table_of(items), tmp_path / "items.parquet")
    page = {"type": "FeatureCollection", "features": items}
    server = stac_api_of(lambda _asked: reply_json(page))
    catalogs = {
        "linked": StaticCatalog.open(linked(tmp_path / "linked", items), ("B02",)),
        "held": StaticCatalog.open(tmp_path / "items.parquet", ("B02",)),
        "api": StacApi(StacApiSource(url=server.url), ("B02",), client=JsonClient(attempts=1)),
    }
    monkeypatch.setattr(static, "HELD_ROWS", 1)
    catalogs["streamed"] = StaticCatalog.open(tmp_path / "items.parquet", ("B02",), tmp_path / "scratch")
    assert isinstance(catalogs["streamed"], ParquetCatalog)
    found = {form: catalog.search(BOX, YEAR) for form, catalog in catalogs.items()}
    names = ["first", "last", "odd"] if kind in USABLE else ["first", "last"]
    assert {form: [scene.item_id for scene in scenes] for form, scenes in found.items()} == dict.fromkeys(catalogs, names)
    assert all(scenes == found["linked"] for scenes in found.values())
    reasons = {form: list(catalog.refused.values()) for form, catalog in catalogs.items()}
    assert len(reasons["linked"]) == (kind not in USABLE)
    assert all(one == reasons["linked"] for one in reasons.values()), reasons


def test_an_item_of_a_linked_catalog_that_is_no_document_is_refused_and_the_others_serve(tmp_path):
    folder = linked(tmp_path / "linked", [item("first"), item("cut"), item("gone"), item("deep"), item("last")])
    (folder / "1.json").write_text('{"id": "cut", ')
    (folder / "2.json").unlink()
    (folder / "3.json").write_text("[" * 100_000)
    catalog = StaticCatalog.open(folder, ("B02",))
    assert [scene.item_id for scene in catalog.search(BOX, YEAR)] == ["first", "last"]
    assert set(catalog.refused) == {"1.json", "2.json", "3.json"}
    assert catalog.refused["2.json"].startswith("is a document that cannot be read: ")


def test_links_in_a_circle_end(tmp_path):
    folder = linked(tmp_path / "linked", [item("first")])
    document = json.loads((folder / "catalog.json").read_text())
    document["links"] += [{"rel": "child", "href": "./catalog.json"}, {"rel": "child", "href": "../linked/./catalog.json"}]
    document["links"] += [{"rel": "item", "href": "0.json"}]
    (folder / "catalog.json").write_text(json.dumps(document))
    assert len(StaticCatalog.open(folder, ("B02",)).search(BOX, YEAR)) == 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/items.json", "https://[a/items.json", "ftp://a.example/items.json"])
def test_a_catalog_on_disk_asks_no_server(tmp_path, address):
    folder = linked(tmp_path / "linked", [item("first")])
    (folder / "catalog.json").write_text(json.dumps({"links": [{"rel": "child", "href": address}]}))
    with pytest.raises(UserError, match="read from this disk alone"):
        StaticCatalog.open(folder, ("B02",))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"links": 3}', b"\xff\xfe", b'{"links": [{"rel": "child", "href": "gone"}]}']
)
def test_a_document_of_links_that_is_none_is_one_line_that_names_it(tmp_path, content):
    (tmp_path / "catalog.json").write_bytes(content)
    with pytest.raises(UserError, match=str(tmp_path)) as caught:
        StaticCatalog.open(tmp_path, ("B02",))
    assert "\n" not in str(caught.value)


def test_a_plan_counts_its_refusals_by_reason(tiny_earth, over, logged):
    for date in ("2022-04-05", "2026-04-06"):
        tiny_earth.scene(date)
    folder = linked(tiny_earth.folder / "linked", [])
    for one in tiny_earth.items:
        for asset in one["assets"].values():
            asset["href"] = str(tiny_earth.folder / asset["href"])
    lacking = [copy.deepcopy(tiny_earth.items[0]) | {"id": f"lacking {number}", "assets": {}} for number in range(3)]
    clouds = copy.deepcopy(tiny_earth.items[0]) | {"id": "clouds"}
    clouds["properties"]["eo:cloud_cover"] = "https://a.example"
    folder.rename(tiny_earth.folder / "old")
    settings = over(linked(tiny_earth.folder / "linked", [*lacking, *tiny_earth.items, clouds]))
    said = logged()
    facts = plan(settings).facts
    assert facts["refused_items"] == 4
    (most, number), (other, _) = facts["refused_items_by_reason"].items()
    assert (most, number) == ("lacks B02, B03, B04, B08", 3)
    assert other.startswith("is malformed: properties.eo:cloud_cover: ")
    (line,) = [line for line in said if "cannot be used" in line]
    assert line.startswith(
        "scenes: 4 items of the catalog cannot be used: 3 because each lacks B02, B03, B04, B08; 1 because each "
    )


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["https://a.example", "EPSG:4326", "nan"]),
)
JUNK = st.recursive(SCALARS, lambda more: st.lists(more, max_size=3) | st.dictionaries(st.text(max_size=6), more, max_size=3))
PLACES = [
    *(("id",), ("collection",), ("geometry",), ("properties",), ("assets",), ("geometry", "type"), ("geometry", "coordinates")),
    *(("properties", name) for name in ("datetime", "eo:cloud_cover", "proj:code", "proj:epsg", "s2:processing_baseline")),
    *(("assets", "B02"), ("assets", "B02", "href"), ("assets", "B02", "raster:bands"), ("assets", "B02", "bands")),
    *(("assets", "B02", "gsd"), ("assets", "data"), ("assets", "B02", "raster:scale"), ("assets", "visual")),
]


@given(st.lists(st.tuples(st.sampled_from(PLACES), JUNK), max_size=4))
def test_whatever_an_item_holds_it_is_a_scene_or_a_refusal(changes):
    odd = item("odd")
    for (*path, last), value in changes:
        place = odd
        for step in path:
            place = place.get(step) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[last] = value
    refused: dict[str, str] = {}
    found = scenes_of([item("first"), odd, item("last")], ("B02",), refused)
    assert {"first", "last"} <= set(found["item_id"].to_pylist())
    assert found.num_rows + len(refused) in (2, 3)
    assert shapely.is_valid_input(shapely.from_wkb(found["geometry"].to_numpy())).all()


VALUES = {
    "eo:cloud_cover": [1.0, None, float("nan"), float("inf"), "12.5", "https://a.example"],
    "proj:code": ["EPSG:32631", "EPSG:None", "IAU_2015:30100", "EPSG:99999999999", None],
    "proj:epsg": [32631, None, "32631", "none", -3, 2**40],
    "datetime": ["2020-07-01T10:00:00Z", "2020-07-01", "soon", None, "9999-12-31T23:59:59-10:00"],
    "s2:processing_baseline": ["05.00", "x", None],
}


@given(st.lists(st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()}), min_size=1, max_size=4))
def test_columns_and_documents_give_the_same_scenes_and_refusals(rows):
    items = [item(f"i{number}", **row) for number, row in enumerate(rows)]
    table = table_of(items)
    texts = {name for name in VALUES if pa.types.is_string(table.schema.field(name).type)}
    # what a column of texts holds is a text in the document too
    for one in items:
        one["properties"] = {k: str(v) if k in texts and v is not None else v for k, v in one["properties"].items()}
    by_items: dict[str, str] = {}
    by_columns: dict[str, str] = {}
    one_by_one = scenes_of(items, ("B02",), by_items)
    assert in_order(scenes_from_columns(table, ("B02",), by_columns)).equals(one_by_one)
    assert by_columns == by_items
