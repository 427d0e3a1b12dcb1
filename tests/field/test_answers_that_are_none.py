"""A STAC API that answers with errors under status 200, with half pages, or with items that are none."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from scripted_server import Reply, landing_page, reply_json

from caco_assets.core.errors import UserError
from caco_assets.imagery.catalogs.json_client import JsonClient
from caco_assets.imagery.catalogs.stac_api import StacApi
from caco_assets.settings import StacApiSource

YEAR = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC))
BOX = (2.0, 42.0, 2.5, 42.5)
METRES = [[5e5, 4e6], [5e5, 5e6], [6e5, 5e6], [5e5, 4e6]]
RING = [[2, 42], [3, 42], [3, 43], [2, 43], [2, 42]]


def item(name: str, **changes) -> dict:
    asset = {"href": "https://a.example/B02.tif", "raster:bands": [{"scale": 1e-4, "offset": 0, "nodata": 0}]}
    whole = {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "c", "links": [],
        "geometry": {"type": "Polygon", "coordinates": [RING]},
        "properties": {"datetime": "2020-07-01T10:00:00Z"}, "assets": {"B02": asset},
    }  # fmt: skip
    return {**whole, **changes}


def page(*items: object) -> dict:
    return {"type": "FeatureCollection", "features": list(items), "links": []}


def client(**options) -> JsonClient:
    return JsonClient(attempts=2, seed=1, sleep=lambda _: None, **options)


def api(url: str, cache: Path | None = None) -> StacApi:
    return StacApi(StacApiSource(url=url), ("B02",), cache=cache, client=client())


NO_PAGES = {
    "an error object": {"code": "InternalError", "description": "the index is being rebuilt"},
    "a message": {"message": "Endpoint request timed out"},
    "an error with an empty list beside it": {"type": "Error", "features": [], "description": "try later"},
    "a list": [],
    "a number": 7,
    "nothing": None,
    "features that are none": {"type": "FeatureCollection", "features": {"0": {}}},
    "links that are none": {"type": "FeatureCollection", "features": [], "links": ["next"]},
}


@pytest.mark.parametrize("kind", NO_PAGES)
def test_an_error_with_status_200_is_neither_an_empty_page_nor_kept(stac_api_of, tmp_path, kind):
    answers = [reply_json(NO_PAGES[kind])] * 2 + [reply_json(page(item("a")))] * 9
    server = stac_api_of(lambda _asked: answers.pop(0))
    with pytest.raises(UserError, match=r"/search: answers with (something that is no page of items|a page whose links)") as caught:
        api(server.url, tmp_path).search(BOX, YEAR)
    assert "\n" not in str(caught.value)
    assert [scene.item_id for scene in api(server.url, tmp_path).search(BOX, YEAR)] == ["a"], "asked again, and planned"


def test_the_message_of_an_error_with_status_200_is_shown(stac_api_of):
    server = stac_api_of(lambda _asked: reply_json(NO_PAGES["an error object"]))
    with pytest.raises(UserError, match=r"\(the index is being rebuilt\)"):
        api(server.url).search(BOX, YEAR)


def test_an_empty_page_is_an_answer_and_is_kept(stac_api_of, tmp_path):
    server = stac_api_of(lambda _asked: reply_json(page()))
    for _ in range(2):
        assert api(server.url, tmp_path).search(BOX, YEAR) == []
    assert sum(asked.path == "/search" for asked in server.asked) == 1


MALFORMED = [
    None,
    7,
    "an item",
    [],
    {},
    {"id": "only a name"},
    item("no properties", properties=None),
    item("no assets", assets=None),
    item("assets in a list", assets=[{"href": "B02.tif"}]),
    item("an asset that is a text", assets={"B02": "B02.tif"}),
    item("an asset without an address", assets={"B02": {"raster:bands": [{"scale": 1e-4}]}}),
    item("an address that is a number", assets={"B02": {"href": 5}}),
    item("bands in an object", assets={"B02": {"href": "B02.tif", "raster:bands": {"scale": 1}}}),
    item("a scale that is an address", assets={"B02": {"href": "B02.tif", "raster:bands": [{"scale": "https://a.example"}]}}),
    item(
        "a cloud cover that is an address", properties={"datetime": "2020-07-01T10:00:00Z", "eo:cloud_cover": "https://a.example"}
    ),
    item("a projection that is an address", properties={"datetime": "2020-07-01T10:00:00Z", "proj:epsg": "https://a.example"}),
    item("a date that is none", properties={"datetime": "yesterday"}),
    item("a date that is a number", properties={"datetime": 20200701}),
    item("a footprint that is none", geometry={"type": "Polygon", "coordinates": "here"}),
    item(
        "a footprint in metres", geometry={"type": "Polygon", "coordinates": [[[500000, 4e6], [5e5, 5e6], [6e5, 5e6], [5e5, 4e6]]]}
    ),
    item("\ud800 half a character"),
    item(""),
]


def test_malformed_items_are_refused_one_by_one_and_the_others_serve(stac_api_of, tmp_path):
    answers = [reply_json(page(item("a"), *MALFORMED, item("b"))), reply_json(page(item("a"), item("b"), item("c")))]
    server = stac_api_of(lambda _asked: answers.pop(0))
    catalog = api(server.url, tmp_path)
    assert [scene.item_id for scene in catalog.search(BOX, YEAR)] == ["a", "b"]
    assert len(catalog.refused) == len(MALFORMED)
    assert all("\n" not in name + reason and len(reason) < 200 for name, reason in catalog.refused.items())
    assert catalog.refused["a cloud cover that is an address"].startswith("is malformed: properties.eo:cloud_cover: ")
    repaired = api(server.url, tmp_path)
    assert [scene.item_id for scene in repaired.search(BOX, YEAR)] == ["a", "b", "c"], "an answer with malformed items is not kept"
    assert repaired.refused == {}


def test_an_item_that_lacks_a_band_is_no_reason_to_ask_again(stac_api_of, tmp_path):
    lacking = item("lacking", assets={"B03": {"href": "B03.tif"}})
    server = stac_api_of(lambda _asked: reply_json(page(lacking)))
    for _ in range(2):
        catalog = api(server.url, tmp_path)
        assert catalog.search(BOX, YEAR) == []
        assert catalog.refused == {"lacking": "lacks B02"}
    assert sum(asked.path == "/search" for asked in server.asked) == 1


def test_unused_parts_of_an_item_may_be_anything(stac_api_of):
    odd = item("a")
    odd["properties"] |= {"proj:code": "EPSG:None", "s2:granule": [{}], "proj:transform": "https://a.example"}
    odd["assets"] |= {"thumbnail": None, "metadata": "https://a.example", "visual": {"bands": 7}}
    (scene,) = api(stac_api_of(lambda _asked: reply_json(page(odd))).url).search(BOX, YEAR)
    assert (scene.item_id, scene.epsg, set(scene.hrefs)) == ("a", None, {"B02"})


@pytest.mark.parametrize(
    "body",
    [b"", b"[" * 100_000, b'{"a": ' * 100_000, b'{"features": ' + b"9" * 10_000 + b"}", b"\xff\xfe\x00", b'{"features": [NaN'],
    ids=["empty", "deep list", "deep object", "a number of ten thousand digits", "no UTF-8", "cut"],
)
def test_a_body_that_python_cannot_parse_is_one_line(stac_api_of, body):
    with pytest.raises(UserError, match="something that is no JSON"):
        api(stac_api_of(lambda _asked: Reply(body=body)).url).search(BOX, YEAR)


LANDINGS = [
    None,
    [],
    "hello",
    {},
    {"type": "Catalog"},
    {"type": "Collection", "links": 3},
    {"type": "Catalog", "id": "x", "links": [1]},
]


@pytest.mark.parametrize("landing", [json.dumps(one) for one in LANDINGS])
def test_a_landing_page_that_is_none_is_one_line(scripted, landing):
    server = scripted(lambda _asked: Reply(body=landing.encode()))
    with pytest.raises(UserError, match=r"imagery\.source\.url"):
        api(server.url)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_search_link_to_a_file_of_this_machine_is_not_followed(scripted, tmp_path, scheme):
    (tmp_path / "page.json").write_text(json.dumps(page(item("stolen"))))
    landing = landing_page(str(tmp_path))
    landing["links"] = [{**landing["links"][-1], "href": f"{scheme}{tmp_path}/page.json"}]
    server = scripted(lambda _asked: reply_json(landing))
    with pytest.raises(UserError, match=r"page\.json: (cannot be asked|answers with something)"):
        api(server.url).search(BOX, YEAR)
