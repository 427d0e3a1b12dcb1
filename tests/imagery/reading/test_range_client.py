"""The HTTP client against a real server on loopback that fails in every way a provider does."""

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from caco_assets.core.errors import UserError
from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.reading.http.range_client import Fetcher, RetryPolicy, proxy_for
from caco_assets.imagery.reading.http.range_response import RangeResponse

pytestmark = pytest.mark.integration

HASTE = RetryPolicy(attempts=4, first_wait_s=0.01, longest_wait_s=0.05, silence_s=0.25, slowest_bytes_per_s=1e6)
KINDS = ("403", "429", "500", "503", "silence", "reset", "truncated", "slow", "html", "xml")


@pytest.fixture
def provider(tmp_path, serving):
    for name in "abcdef":
        (tmp_path / f"{name}.tif").write_bytes(b"II*\0" + name.encode() * 996)
    (tmp_path / "empty.tif").write_bytes(b"")
    with serving(tmp_path, patience=0.6) as running:
        yield running


def test_ranges_of_several_files_come_in_their_order(provider):
    names = "abcdef"
    with Fetcher(3) as fetcher:
        pieces = fetcher.get([(f"{provider.address}/{name}.tif", (10 * n + 4, 10 * n + 9)) for n, name in enumerate(names)])
    assert pieces == [RangeResponse(name.encode() * 5, 1000) for name in names]
    stats = provider.stats()
    assert stats["requests"] == 6
    assert stats["peak"] <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_transient_error_of_every_kind_is_retried(provider, kind):
    provider.fail(kinds=kind, first=2)
    with Fetcher(2, patience=HASTE) as fetcher:
        [piece] = fetcher.get([(f"{provider.address}/a.tif", (0, 50))])
        assert piece == RangeResponse(b"II*\0" + b"a" * 46, 1000)
        assert fetcher.counts.bytes == 50
        # a connection that breaks between two requests is renewed without being counted
        assert fetcher.counts.repeats + 1 == fetcher.counts.requests in ((2, 3) if kind == "reset" else (3,))
    # the server was really asked again: nothing remembers that the file could not be had
    assert provider.stats()[f"failed {kind}"] == 2


REASONS = {"403": "forbidden", "html": "error_page", "xml": "error_page", "500": "server_error", "503": "server_error"}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "429"])
def test_a_file_that_fails_for_good_while_others_are_served_is_the_files_fault(provider, kind):
    provider.fail(kinds=kind, match="b.tif")
    with Fetcher(2, patience=HASTE) as fetcher:
        good, bad = fetcher.get([(f"{provider.address}/{name}.tif", (0, 50)) for name in "ab"])
    assert isinstance(good, RangeResponse)
    assert isinstance(bad, UnreadableError)
    assert bad.reason == REASONS.get(kind, "timeout")
    assert bad.detail.startswith("b.tif: ")
    assert bad.detail.endswith(", 4 times")


@pytest.mark.parametrize("kind", KINDS)
def test_a_provider_that_serves_nothing_stops_the_work_and_says_what_to_do(provider, kind):
    reference_files = [f"{provider.address}/{name}.tif" for name in "abc"]
    provider.fail(kinds=kind)
    with (
        Fetcher(2, reference_files=reference_files, patience=HASTE) as fetcher,
        pytest.raises(UserError, match=r"the provider does not serve its files .*run the same command again later, it continues"),
    ):
        fetcher.get([(reference_files[0], (0, 50))])


def test_a_provider_that_limits_the_rate_is_no_broken_file(provider):
    provider.fail(kinds="429", match="b.tif")
    with Fetcher(2, patience=HASTE) as fetcher, pytest.raises(UserError, match=r"limits the rate: lower imagery\.connections"):
        fetcher.get([(f"{provider.address}/{name}.tif", (0, 50)) for name in "ab"])


def test_a_broken_file_alone_is_judged_by_the_reference_files(provider):
    provider.fail(kinds="500", match="b.tif")
    reference_files = [f"{provider.address}/{name}.tif" for name in "bc"]
    with Fetcher(2, reference_files=reference_files, patience=HASTE) as fetcher:
        [bad] = fetcher.get([(reference_files[0], (0, 50))])
    assert isinstance(bad, UnreadableError)
    assert (bad.reason, bad.detail) == ("server_error", "b.tif: 500 Internal Server Error, 4 times")


def test_a_server_that_is_not_there_stops_the_work():
    with Fetcher(2, patience=HASTE) as fetcher, pytest.raises(UserError, match=r"127\.0\.0\.1:9: .*a\.tif: no connection, 4 times"):
        fetcher.get([("http://127.0.0.1:9/a.tif", (0, 50))])


@pytest.mark.parametrize(("name", "detail"), [("none", "the file does not exist"), ("empty", "the file is empty")])
def test_a_file_that_is_not_there_is_asked_for_once(provider, name, detail):
    with Fetcher(2, patience=HASTE) as fetcher:
        [bad] = fetcher.get([(f"{provider.address}/{name}.tif", (0, 50))])
    assert isinstance(bad, UnreadableError)
    assert (bad.reason, bad.detail) == ("unreadable", detail)
    assert provider.stats()["requests"] == 1


def test_a_server_without_ranges_serves_all_the_same(tmp_path, serving):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(range(200)) * 5000)
    with serving(tmp_path, no_ranges=True) as provider, Fetcher(2) as fetcher:
        pieces = fetcher.get([(f"{provider.address}/a.tif", span) for span in ((0, 10), (104, 106), (999_990, 1_000_004))])
        [short] = fetcher.get([(f"{provider.address}/a.tif", (999_990, 1_000_005))])
    assert [piece.data[-2:] for piece in pieces] == [b"\4\5", b"de", bytes([198, 199])]
    assert short.reason == "unreadable"


def test_an_address_is_signed_again_before_each_attempt(provider):
    provider.fail(kinds="403", first=2)
    signed = []

    def sign(href: str) -> str:
        signed.append(href)
        return f"{href}?key={len(signed)}"

    with Fetcher(2, sign, patience=HASTE) as fetcher:
        fetcher.get([(f"{provider.address}/a.tif", (0, 50))])
    assert signed == [f"{provider.address}/a.tif"] * 3


def test_all_requests_wait_when_the_provider_asks_for_it(provider):
    provider.fail(kinds="429", first=1)
    patience = RetryPolicy(attempts=3, first_wait_s=0.01, longest_wait_s=30, silence_s=5)
    start = time.monotonic()
    with Fetcher(4, patience=patience) as fetcher:
        fetcher._pause_until[provider.address.removeprefix("http://")] = start + 0.4
        fetcher.get([(f"{provider.address}/{name}.tif", (0, 50)) for name in "abc"])
    assert time.monotonic() - start >= 0.4


def test_stopping_cancels_waiting_threads(provider):
    provider.fail(kinds="silence")
    with Fetcher(2) as fetcher, ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(fetcher.get, [(f"{provider.address}/a.tif", (0, 50))])
        time.sleep(0.1)
        fetcher.stop()
        with pytest.raises(CancelledError):
            waiting.result(timeout=60)
        with pytest.raises(CancelledError):
            fetcher.get([(f"{provider.address}/a.tif", (0, 50))])
    assert not any(thread.name == "fetch" for thread in threading.enumerate())


def test_a_proxy_is_used_where_the_environment_names_one_and_not_for_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "127.0.0.1,.inside.example")
    proxy_for.cache_clear()
    assert proxy_for("http", "data.example") == "http://proxy.example:3128"
    assert proxy_for("http", "127.0.0.1") is None
    assert proxy_for("http", "a.inside.example") is None
    proxy_for.cache_clear()
