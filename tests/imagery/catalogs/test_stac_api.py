"""The STAC API client against a real HTTP server on loopback that answers with real items."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from pydantic import ValidationError

from caco_assets.core.errors import UserError
from caco_assets.imagery.catalogs.json_client import JsonClient
from caco_assets.imagery.catalogs.response_cache import FRESH, SETTLED, RequestCache
from caco_assets.imagery.catalogs.stac_api import StacApi
from caco_assets.imagery.planning.plan import Sites, write_plan
from caco_assets.imagery.planning.ranking import Limits
from caco_assets.imagery.planning.scenes_parquet import read_scenes
from caco_assets.imagery.scenes.periods import period_windows
from caco_assets.settings import StacApiSource

pytestmark = pytest.mark.integration

CORE = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
JULY = (datetime(2020, 7, 1, tzinfo=UTC), datetime(2020, 7, 31, 8, 6, 11, 24000, tzinfo=UTC))
BOX = (27.0, -8.0, 27.9, -7.5)
CUT_BODY = ("half a body",)


class Server:
    """Serves the stored search response, five items a page, and remembers what was asked."""

    def __init__(self, features: list[dict]) -> None:
        self.features = features
        self.asked: list[dict] = []
        self.pages = 5
        self.conforms = list(CORE)
        self.troubles: list[tuple] = []
        """Answers that come first: (status, headers, body), `None` for a cut connection, `CUT_BODY` for half a body."""
        self.most = 1000
        self.slow_s = 0.0
        self.busy = self.busiest = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def send(self, content: bytes, status: int = 200, **headers: str) -> None:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(content)))
                try:
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    self.close_connection = True  # the client has given up waiting

            def do_GET(self) -> None:
                time.sleep(outer.slow_s)
                links = [{"rel": "self", "href": outer.url}, {"rel": "root", "href": outer.url}]
                links.append({"rel": "search", "href": f"{outer.url}/search", "method": "POST", "type": "application/geo+json"})
                landing = {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "loopback"}
                self.send(json.dumps({**landing, "conformsTo": outer.conforms, "links": links}).encode())

            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.asked.append(query)
                    trouble = outer.troubles.pop(0) if outer.troubles else ()
                    outer.busy += 1
                    outer.busiest = max(outer.busiest, outer.busy)
                time.sleep(0.005)
                with outer.lock:
                    outer.busy -= 1
                if trouble is None or trouble == CUT_BODY:
                    self.close_connection = True
                    if trouble:
                        self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"type": "Feature')
                        self.wfile.flush()
                    self.connection.close()
                elif trouble:
                    status, headers, body = trouble
                    self.send(body, status, **headers)
                elif query["limit"] > outer.most:
                    self.send(b'{"message": "Internal server error"}', 502)
                else:
                    self.page(query)

            def page(self, query: dict) -> None:
                start = int(query.get("token", 0))
                end = start + min(outer.pages, query["limit"])
                page = {"type": "FeatureCollection", "features": outer.features[start:end], "links": []}
                if end < len(outer.features):
                    following = {"rel": "next", "href": f"{outer.url}/search", "method": "POST"}
                    page["links"].append({**following, "body": {**query, "token": str(end)}})
                self.send(json.dumps(page).encode())

            def log_message(self, *arguments: object) -> None:
                """Quiet."""

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._httpd.server_port}"
        self._thread = threading.Thread(target=self._httpd.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()


@pytest.fixture
def server(real):
    search = json.loads((real / "stac_items" / "planetarycomputer_search_35MNM_2020-06_2020-07.geojson").read_text())
    running = Server(search["features"])
    yield running
    running.stop()


class Patience:
    """A client that notes how long it would have slept, and does not."""

    def __init__(self, **options) -> None:
        self.slept: list[float] = []
        self.client = JsonClient(seed=1, sleep=self.slept.append, **options)


def api(server: Server, patience: Patience | None = None, **options) -> StacApi:
    source = StacApiSource(url=server.url, **options.pop("source", {}))
    return StacApi(source, options.pop("bands", ("B02", "B03", "B04")), client=(patience or Patience()).client, **options)


def test_all_pages_of_a_search_become_scenes_of_the_half_open_interval(server):
    scenes = api(server).search(BOX, JULY)
    assert [scene.datetime.day for scene in scenes] == [1, 6, 11, 16, 21, 26]  # the server also sent June, and the end itself
    assert server.asked[0]["collections"] == ["sentinel-2-l2a"]
    assert server.asked[0]["bbox"] == list(BOX)
    assert server.asked[0]["datetime"] == "2020-07-01T00:00:00Z/2020-07-31T08:06:12Z"
    assert server.asked[0]["limit"] == 250
    assert len(server.asked) == 3


def test_an_item_that_comes_on_two_pages_is_one_scene(server):
    server.features = [*server.features, *server.features[:7]]
    assert len(api(server).search(BOX, JULY)) == 6


def test_a_box_across_the_antimeridian_is_asked_in_two_parts(server):
    api(server).search((179.5, -17.0, -179.5, -16.0), JULY)
    assert {tuple(query["bbox"]) for query in server.asked} == {(179.5, -17.0, 180.0, -16.0), (-180.0, -17.0, -179.5, -16.0)}


def test_items_that_cannot_serve_are_remembered_with_their_reason(server):
    catalog = api(server, bands=("B02", "B10"))
    assert catalog.search(BOX, JULY) == []
    assert set(catalog.refused.values()) == {"lacks B10"}
    assert len(catalog.refused) == 13


def test_only_what_is_looked_at_is_asked_for_where_the_server_can_choose_fields(server):
    api(server).search(BOX, JULY)
    assert "fields" not in server.asked[0]
    server.conforms += ["https://api.stacspec.org/v1.0.0/item-search#fields"]
    api(server).search(BOX, JULY)
    fields = server.asked[-1]["fields"]
    assert {"id", "geometry", "properties.eo:cloud_cover", "assets.B02", "assets.blue", "assets.B02_10m"} <= set(fields["include"])
    assert "assets.B05" not in fields["include"]
    api(server, bands=("own",)).search(BOX, JULY)
    assert "assets" in server.asked[-1]["fields"]["include"], "of bands with other names the keys are not known"


def test_cloudy_scenes_are_left_out_by_the_server_where_it_can_and_unknown_ones_never(server):
    api(server, max_scene_cloud=90.0).search(BOX, JULY)
    assert "filter" not in server.asked[0]
    server.conforms += ["https://api.stacspec.org/v1.0.0/item-search#query"]
    api(server, max_scene_cloud=90.0).search(BOX, JULY)
    assert "query" not in server.asked[-1], "it would drop scenes of unknown cloud cover"
    api(server, max_scene_cloud=90.0, source={"provider": "earth_search"}).search(BOX, JULY)
    assert server.asked[-1]["query"] == {"eo:cloud_cover": {"lte": 90.0}}
    server.conforms += ["https://api.stacspec.org/v1.0.0/item-search#filter"]
    api(server, max_scene_cloud=90.0).search(BOX, JULY)
    low, unknown = server.asked[-1]["filter"]["args"]
    assert (low["op"], low["args"][1], unknown["op"]) == ("<=", 90.0, "isNull")
    api(server, max_scene_cloud=100.0).search(BOX, JULY)
    assert "filter" not in server.asked[-1]


def test_pages_that_the_server_cannot_send_whole_are_asked_for_smaller(server):
    server.most = 70
    assert len(api(server, Patience(attempts=2)).search(BOX, JULY)) == 6
    assert [query["limit"] for query in server.asked] == [250, 250, 62, 62, 62]


TROUBLES = {
    "limit in seconds": (429, {"Retry_After": "7"}, b"{}"),
    "limit": (429, {}, b"slow down"),
    "forbidden": (403, {}, b'{"message": "Forbidden"}'),
    "server error": (500, {}, b'{"description": "backend is down"}'),
    "gateway": (502, {}, b"<html>Bad gateway</html>"),
    "page of HTML": (200, {"Content_Type": "text/html"}, b"<!DOCTYPE html><html>Log in</html>"),
    "cut connection": None,
    "cut body": CUT_BODY,
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_transient_errors_are_retried(logged, server, kind):
    said = logged()
    server.troubles = [TROUBLES[kind]] * 2
    patience = Patience()
    assert len(api(server, patience).search(BOX, JULY)) == 6
    assert len(patience.slept) == 2
    assert len(said) == 2
    assert "try 2 of 6 in" in said[0]
    if kind == "limit in seconds":
        assert all(7 <= wait <= 8 for wait in patience.slept)
    else:
        assert 0 <= patience.slept[0] <= 2
        assert 0 <= patience.slept[1] <= 4


def test_waiting_times_differ_and_grow_to_a_limit(server):
    server.troubles = [TROUBLES["server error"]] * 11
    patience = Patience(attempts=12)
    api(server, patience).search(BOX, JULY)
    assert len(set(patience.slept)) == 11
    assert all(wait <= min(60.0, 2.0 ** (number + 1)) for number, wait in enumerate(patience.slept))
    server.troubles = [TROUBLES["server error"]] * 11
    again = Patience(attempts=12)
    api(server, again).search(BOX, JULY)
    assert again.slept == patience.slept, "with a seed they are the same"


def test_a_date_in_retry_after_is_waited_for(server):
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    server.troubles = [(503, {"Retry_After": moment}, b"")]
    patience = Patience()
    api(server, patience).search(BOX, JULY)
    assert 27 < patience.slept[0] <= 31


def test_a_server_that_asks_for_too_long_a_pause_is_out_of_service(server):
    server.troubles = [(429, {"Retry_After": "7200"}, b"")]
    patience = Patience()
    with pytest.raises(UserError, match="asks to come back in 120 minutes"):
        api(server, patience).search(BOX, JULY)
    assert patience.slept == []


def test_after_the_last_attempt_there_is_one_line_for_the_user(server):
    server.troubles = [TROUBLES["server error"]] * 99
    patience = Patience(attempts=3)
    with pytest.raises(UserError, match=r"/search: answers 500 .*backend is down.*asked 3 times.*run the same command again"):
        api(server, patience, source={"page_size": 25}).search(BOX, JULY)
    assert len(server.asked) == 3


def test_a_page_of_html_is_named_as_one(server):
    server.troubles = [TROUBLES["page of HTML"]] * 3
    with pytest.raises(UserError, match="a page of HTML or XML instead of JSON"):
        api(server, Patience(attempts=3)).search(BOX, JULY)


@pytest.mark.parametrize("status", [400, 404, 422])
def test_permanent_errors_stop_at_once(server, status):
    server.troubles = [(status, {}, b'{"detail": "no such collection"}')]
    patience = Patience()
    with pytest.raises(UserError, match=rf"answers {status} .*no such collection"):
        api(server, patience).search(BOX, JULY)
    assert (len(server.asked), patience.slept) == (1, [])


def test_a_time_out_is_waited_for(server):
    server.slow_s = 0.5
    patience = Patience(attempts=2, timeout_s=(1.0, 0.05))
    with pytest.raises(UserError, match="does not answer in time"):
        api(server, patience)
    assert len(patience.slept) == 1


def test_no_server_at_the_address_is_one_line_for_the_user_without_secrets():
    source = StacApiSource(url="http://user:hunter2@127.0.0.1:9/v1?key=hunter2")
    with pytest.raises(
        UserError, match=r"imagery.source.url: no STAC API answers there \(http://127.0.0.1:9/v1: no server"
    ) as caught:
        StacApi(source, ("B02",), client=Patience(attempts=2).client)
    assert "hunter2" not in str(caught.value)


def test_a_provider_fills_in_what_it_publishes_and_every_value_can_be_set_otherwise():
    published = StacApiSource.model_validate({"kind": "stac_api", "provider": "planetary_computer"})
    assert (published.signer, published.collection) == ("planetary_computer", "sentinel-2-l2a")
    assert published.url == "https://planetarycomputer.microsoft.com/api/stac/v1"
    other = StacApiSource.model_validate({"kind": "stac_api", "provider": "cdse", "url": "http://127.0.0.1:1", "signer": "none"})
    assert (other.url, other.signer) == ("http://127.0.0.1:1", "none")
    with pytest.raises(ValidationError, match=r"name a provider \(earth_search, planetary_computer, cdse\) or give the url"):
        StacApiSource.model_validate({"kind": "stac_api"})


# ── planning ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

WINDOWS = period_windows("2020-07", 1, 2, 2)


def sites(count: int, spread: float = 0.35) -> Sites:
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(27.2, 27.2 + spread, count), rng.uniform(-7.9, -7.9 + spread, count)
    return Sites.of([f"L{number:07d}" for number in range(count)], lon, lat, np.zeros(count, np.int32), 64, 10)


def plan(tmp_path, server: Server, places: Sites, name: str, **options) -> dict[str, int]:
    catalog = api(server, **options)
    return write_plan(tmp_path / name, places, catalog, WINDOWS, Limits(90.0, 8), tmp_path / "scratch")


def test_ten_thousand_places_of_a_few_tiles_cost_as_many_requests_as_ten(tmp_path, server):
    server.pages = 250
    requests = {}
    for count in (10, 10_000):
        server.asked.clear()
        facts = plan(tmp_path, server, sites(count), f"{count}.parquet")
        requests[count] = len(server.asked)
        assert len(server.asked) == 2 * facts["cells"], "one request for each cell and period"
    assert requests[10_000] == requests[10] == 2
    rows = read_scenes(tmp_path / "10000.parquet")
    assert len(set(rows["location_id"].to_pylist())) == 10_000


def test_searches_overlap_up_to_the_connections_and_change_nothing(tmp_path, server):
    server.pages = 250
    places = sites(200, spread=12.0)
    facts = plan(tmp_path, server, places, "one.parquet", source={"connections": 1})
    assert server.busiest == 1
    assert facts["cells"] > 50
    plan(tmp_path, server, places, "six.parquet", source={"connections": 6})
    assert 2 <= server.busiest <= 6
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "six.parquet").read_bytes()


def test_an_interrupted_planning_resumes_from_the_cached_responses(tmp_path, server):
    server.pages = 250
    places = sites(100, spread=6.0)
    whole = plan(tmp_path, server, places, "whole.parquet")
    server.asked.clear()
    server.troubles = [()] * 20 + [(400, {}, b"{}")]
    with pytest.raises(UserError, match="answers 400"):
        plan(tmp_path, server, places, "broken.parquet", cache=tmp_path / "cache")
    assert not (tmp_path / "broken.parquet").exists()
    server.troubles = []
    plan(tmp_path, server, places, "resumed.parquet", cache=tmp_path / "cache")
    assert len(server.asked) < 2 * whole["cells"] + 10, "what was answered is not asked again"
    assert (tmp_path / "resumed.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    server.asked.clear()
    plan(tmp_path, server, places, "again.parquet", cache=tmp_path / "cache")
    assert server.asked == []


def test_the_cache_holds_little_more_than_what_is_looked_at(tmp_path, server):
    api(server, cache=tmp_path / "cache").search(BOX, JULY)
    (file,) = (tmp_path / "cache").rglob("*.gz")
    assert file.stat().st_size < 13 * 600
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_an_answer_counts_for_a_day_or_for_good_when_its_dates_had_settled(tmp_path):
    cache, now = RequestCache(tmp_path), datetime(2026, 11, 21, tzinfo=UTC)
    cache.put({"q": 1}, [{"id": "a"}], now)
    recent, old = now - timedelta(days=1), now - SETTLED
    assert cache.get({"q": 1}, recent, now + FRESH / 2) == [{"id": "a"}]
    assert cache.get({"q": 1}, recent, now + FRESH) is None
    assert cache.get({"q": 1}, old, now + timedelta(days=999)) == [{"id": "a"}]
    assert cache.get({"q": 2}, old, now) is None


def test_a_damaged_answer_is_asked_for_again(tmp_path):
    cache, now = RequestCache(tmp_path), datetime(2026, 11, 21, tzinfo=UTC)
    cache.put({"q": 1}, [{"id": "a"}], now)
    (file,) = tmp_path.rglob("*.gz")
    file.write_bytes(file.read_bytes()[:20])
    assert cache.get({"q": 1}, now, now) is None
