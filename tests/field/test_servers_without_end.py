"""Servers whose answers do not end: paging in a circle, pages without number, bodies without length, drops of bytes."""

import gzip
import itertools
import resource
import time
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError
from scripted_server import Reply, reply_json

from caco_assets.core.errors import UserError
from caco_assets.imagery.catalogs.json_client import JsonClient
from caco_assets.imagery.catalogs.stac_api import StacApi
from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.reading.http.range_client import Fetcher, RetryPolicy
from caco_assets.settings import ServerLimits, Settings, StacApiSource, load_settings

YEAR = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC))
BOX = (2.0, 42.0, 2.5, 42.5)
HASTE = RetryPolicy(attempts=2, first_wait_s=0.01, longest_wait_s=0.02, silence_s=1.0)
RING = [[2, 42], [3, 42], [3, 43], [2, 43], [2, 42]]


def item(name: str) -> dict:
    return {
        "type": "Feature", "id": name, "geometry": {"type": "Polygon", "coordinates": [RING]},
        "properties": {"datetime": "2020-07-01T10:00:00Z", "s2:processing_baseline": "05.00"},
        "assets": {"B02": {"href": "https://a.example/B02.tif"}},
    }  # fmt: skip


def page(*names: str, following: dict | None = None) -> Reply:
    links = [] if following is None else [{"rel": "next", **following}]
    return reply_json({"type": "FeatureCollection", "features": [item(name) for name in names], "links": links})


def search(url: str, tmp_path=None, attempts: int = 1, **limits) -> list[str]:
    bounds = ServerLimits(**limits)
    client = JsonClient(attempts=attempts, seed=1, sleep=lambda _: None, limits=bounds)
    catalog = StacApi(StacApiSource(url=url), ("B02",), cache=tmp_path, client=client, limits=bounds)
    return [scene.item_id for scene in catalog.search(BOX, YEAR)]


def test_a_next_link_to_the_same_page_ends_in_one_line_and_nothing_is_kept(stac_api_of, tmp_path):
    server = stac_api_of(lambda asked: page("a", "b", following={"href": "/search", "method": "POST", "body": asked.body}))
    with pytest.raises(UserError, match=r"page 1 of the search brings nothing new, and its next link leads on") as caught:
        search(server.url, tmp_path)
    assert "\n" not in str(caught.value)
    assert sum(asked.path == "/search" for asked in server.asked) == 1
    assert not list(tmp_path.rglob("*.gz"))


def test_the_same_page_under_ever_new_tokens_ends_in_one_line(stac_api_of):
    tokens = itertools.count()
    server = stac_api_of(lambda _asked: page("a", "b", following={"href": f"/search?token={next(tokens)}", "method": "GET"}))
    with pytest.raises(UserError, match=r"page 2 of the search brings nothing new"):
        search(server.url)
    assert len(server.asked) <= 4


def test_pages_in_a_circle_end_in_one_line(stac_api_of):
    def answer(asked):
        number = int(asked.path.rpartition("=")[2]) if "=" in asked.path else 0
        return page(f"item {number}", following={"href": f"/search?page={(number + 1) % 3}"})

    server = stac_api_of(answer)
    with pytest.raises(UserError, match="brings nothing new"):
        search(server.url)
    assert len(server.asked) <= 6


def test_a_page_of_known_items_without_a_next_link_is_an_end(stac_api_of):
    pages = iter([page("a", "b", following={"href": "/search?page=1"}), page("b")])
    assert search(stac_api_of(lambda _asked: next(pages)).url) == ["a", "b"]


def test_an_empty_page_is_an_end_whatever_it_links_to(stac_api_of):
    pages = iter([page("a", following={"href": "/search?page=1"}), page(following={"href": "/search?page=2"})])
    assert search(stac_api_of(lambda _asked: next(pages)).url) == ["a"]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"pages": 5}, r"one search has more than 5 pages; raise imagery\.limits\.pages"),
        ({"items": 12}, r"one search has more than 12 items; raise imagery\.limits\.items"),
        ({"search_mb": 0.01}, r"one search has more than 0\.01 MB; raise imagery\.limits\.search_mb"),
        ({"search_minutes": 0.0001}, r"one search takes more than 0\.0001 minutes; .*imagery\.limits\.search_minutes"),
    ],
)
def test_a_search_without_end_stops_at_each_limit(stac_api_of, limits, expected):
    numbers = itertools.count()

    def answer(_asked):
        number = next(numbers)
        return page(f"{number} a", f"{number} b", following={"href": f"/search?page={number}"})

    server = stac_api_of(answer)
    with pytest.raises(UserError, match=expected):
        search(server.url, **limits)
    assert len(server.asked) < 30


@pytest.mark.parametrize(
    "following",
    [
        {"href": "file:///etc/passwd"}, {"href": "/etc/\x00"}, {"href": None}, {}, {"href": ["/search"]}, {"href": "http://[a"},
        {"href": "/search", "method": "DELETE"}, {"href": "/search", "method": "POST", "body": [1]},
        {"href": "/search", "headers": {"X": 5}}, {"href": "/search?a=1", "headers": {"X": "a\r\nHost: b"}}, {"href": "ftp://a/b"},
    ],
)  # fmt: skip
def test_a_next_link_that_cannot_be_asked_is_one_line(stac_api_of, following):
    server = stac_api_of(lambda asked: page("a", following=following) if asked.method == "POST" else Reply(404))
    with pytest.raises(UserError, match=r"the next link of a page is none that can be asked|cannot be asked|answers 404") as caught:
        search(server.url)
    assert "\n" not in str(caught.value)


def endless(block: bytes = b" " * 65536):
    return itertools.repeat(block)


def memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_a_body_without_end_is_left_at_the_limit_and_smaller_pages_are_tried(stac_api_of):
    server = stac_api_of(lambda _asked: Reply(body=endless()))
    before = memory_mb()
    with pytest.raises(UserError, match=r"sends more than 1 MB in one response; raise imagery\.limits\.response_mb"):
        search(server.url, response_mb=1)
    assert memory_mb() - before < 64
    assert [asked.body["limit"] for asked in server.asked if asked.body] == [250, 62, 25]


def test_a_packed_body_counts_by_what_it_unpacks_to(stac_api_of):
    bomb = gzip.compress(b" " * (64 << 20))
    server = stac_api_of(lambda _asked: Reply(headers={"Content-Encoding": "gzip"}, body=bomb))
    before = memory_mb()
    with pytest.raises(UserError, match="sends more than 1 MB in one response"):
        search(server.url, response_mb=1)
    assert memory_mb() - before < 48


def test_a_packed_body_that_is_none_is_asked_for_again(stac_api_of):
    replies = iter([Reply(headers={"Content-Encoding": "gzip"}, body=b"not packed"), page("a")])
    assert search(stac_api_of(lambda _asked: next(replies)).url, attempts=2) == ["a"]


def drops():
    while True:
        time.sleep(0.02)
        yield b" "


def test_a_body_in_drops_ends_at_the_time_limit(stac_api_of):
    server = stac_api_of(lambda _asked: Reply(body=drops()))
    with pytest.raises(UserError, match=r"takes more than 0\.002 minutes for one response"):
        search(server.url, response_minutes=0.002)


def read(url: str, span: tuple[int, int] = (0, 16), **limits) -> object:
    with Fetcher(2, reference_files=[f"{url}/other"], patience=HASTE, limits=ServerLimits(**limits)) as fetcher:
        return fetcher.get([(f"{url}/file.tif", span)])[0]


def served(reply: Reply):
    """A provider whose other files are served."""
    part = Reply(206, {"Content-Range": "bytes 0-15/99"}, b"II*\0" * 4)
    return lambda asked: part if asked.path == "/other" else reply


def test_a_part_without_end_is_not_read(scripted):
    server = scripted(served(Reply(206, {"Content-Range": "bytes 0-15/3000000000"}, endless())))
    before = memory_mb()
    found = read(server.url)
    assert isinstance(found, UnreadableError)
    assert found.detail.startswith("file.tif: more bytes than were asked for")
    assert memory_mb() - before < 64


def test_a_part_that_says_it_has_three_gigabytes_is_not_read(scripted):
    length = {"Content-Range": "bytes 0-15/3000000000", "Content-Length": "3000000000"}
    found = read(scripted(served(Reply(206, length, endless()))).url)
    assert isinstance(found, UnreadableError)
    assert "more bytes than were asked for" in found.detail


def test_an_error_page_without_end_is_not_read(scripted):
    server = scripted(served(Reply(503, {}, endless())))
    before = memory_mb()
    found = read(server.url)
    assert isinstance(found, UnreadableError)
    assert (found.reason, memory_mb() - before < 64) == ("server_error", True)


def test_a_whole_file_in_place_of_a_part_is_read_to_the_limit_only(scripted):
    server = scripted(served(Reply(200, {}, endless(b"II*\0" * 16384))))
    assert read(server.url, (4, 8)).data == b"II*\0"
    found = read(server.url, (2 << 20, (2 << 20) + 4), response_mb=1)
    assert isinstance(found, UnreadableError)
    assert (
        "no range but the whole file, and 2 MB of it would be read at once: more than imagery.limits.response_mb=1" in found.detail
    )


def test_a_file_that_asks_for_gigabytes_of_itself_is_not_asked_for_them(scripted):
    server = scripted(served(Reply(404)))
    found = read(server.url, (16, 5 << 30))
    assert isinstance(found, UnreadableError)
    assert "imagery.limits.response_mb=256" in found.detail
    assert server.asked == []


def test_the_limits_are_settings_that_change_no_fingerprint_at_their_defaults(settings: Settings, tmp_path):
    assert "limits" not in settings.model_dump(mode="json")["imagery"]
    other = load_settings("tiny", home=tmp_path, imagery={"limits": {"pages": 7}})
    assert other.imagery.limits == ServerLimits(pages=7)
    assert other.model_dump(mode="json")["imagery"]["limits"]["pages"] == 7
    with pytest.raises(ValidationError):
        ServerLimits(pages=0)
