"""The STAC API client against a real HTTP server on loopback that answers with real items."""

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from caco_assets.errors import UserError
from caco_assets.imagery.catalog import StacApi
from caco_assets.settings import StacApiSource

CONFORMS = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
JULY = (datetime(2020, 7, 1, tzinfo=UTC), datetime(2020, 7, 31, 8, 6, 11, 24000, tzinfo=UTC))


@pytest.fixture
def server(real):
    """Serves the stored search response, five items a page, and remembers what was asked."""
    features = json.loads((real / "stac_items" / "planetarycomputer_search_35MNM_2020-06_2020-07.geojson").read_text())["features"]
    asked: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        broken = False

        def answer(self, content: dict, status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            here = f"http://127.0.0.1:{self.server.server_port}"
            links = [{"rel": "self", "href": here}, {"rel": "root", "href": here}]
            links.append({"rel": "search", "href": f"{here}/search", "method": "POST", "type": "application/geo+json"})
            landing = {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "loopback"}
            self.answer({**landing, "conformsTo": CONFORMS, "links": links})

        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(query)
            if Handler.broken:
                self.answer({"description": "backend is down"}, 500)
                return
            start = int(query.get("token", 0))
            page = {"type": "FeatureCollection", "features": features[start : start + 5], "links": []}
            if start + 5 < len(features):
                following = {"rel": "next", "href": f"http://127.0.0.1:{self.server.server_port}/search", "method": "POST"}
                page["links"].append({**following, "body": {**query, "token": str(start + 5)}})
            self.answer(page)

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", asked, Handler
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def api(url: str) -> StacApi:
    return StacApi(StacApiSource(url=url), ("B02", "B03", "B04"))


@pytest.mark.integration
def test_all_pages_of_a_search_become_scenes_of_the_half_open_interval(server):
    url, asked, _ = server
    scenes = api(url).search((27.0, -8.0, 27.9, -7.5), JULY)
    assert [scene.datetime.day for scene in scenes] == [1, 6, 11, 16, 21, 26]  # the server also sent June, and the end itself
    assert asked[0]["collections"] == ["sentinel-2-l2a"]
    assert asked[0]["bbox"] == [27.0, -8.0, 27.9, -7.5]
    assert asked[0]["datetime"].startswith("2020-07-01T00:00:00Z/2020-07-31T08:06:11")
    assert len(asked) == 3


@pytest.mark.integration
def test_a_box_across_the_antimeridian_is_asked_in_two_parts(server):
    url, asked, _ = server
    api(url).search((179.5, -17.0, -179.5, -16.0), JULY)
    assert {tuple(query["bbox"]) for query in asked} == {(179.5, -17.0, 180.0, -16.0), (-180.0, -17.0, -179.5, -16.0)}


@pytest.mark.integration
def test_items_that_cannot_serve_are_remembered_with_their_reason(server):
    url, _, _ = server
    catalog = StacApi(StacApiSource(url=url), ("B02", "B10"))
    assert catalog.search((27.0, -8.0, 27.9, -7.5), JULY) == []
    assert set(catalog.refused.values()) == {"lacks B10"}
    assert len(catalog.refused) == 13


@pytest.mark.integration
def test_a_server_error_is_one_line_for_the_user(server):
    url, _, handler = server
    catalog = api(url)
    handler.broken = True
    with pytest.raises(UserError, match=r"the search failed .*backend is down.*run the same command again"):
        catalog.search((27.0, -8.0, 27.9, -7.5), JULY)


@pytest.mark.integration
def test_no_server_at_the_address_is_one_line_for_the_user():
    with pytest.raises(UserError, match=r"imagery.source.url=http://127.0.0.1:9: no STAC API answers there"):
        api("http://127.0.0.1:9")
