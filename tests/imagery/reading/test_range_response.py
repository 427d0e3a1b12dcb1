"""Checks of the HTTP response to a ranged request."""

import pytest

from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.reading.http.range_response import RangeResponse, TransientError, check_response


def part(start: int, stop: int, size: int) -> dict[str, str]:
    return {"Content-Range": f"bytes {start}-{stop - 1}/{size}", "Content-Length": str(stop - start)}


def test_a_part_is_what_was_asked_for():
    assert check_response(206, part(10, 14, 99), b"abcd", (10, 14)) == RangeResponse(b"abcd", 99)


def test_the_first_bytes_of_a_short_file_are_all_of_it():
    assert check_response(206, part(0, 4, 4), b"II*\0", (0, 100)) == RangeResponse(b"II*\0", 4)


def test_a_server_without_ranges_sends_the_whole_file():
    assert check_response(200, {"Content-Length": "6"}, b"II*abc", (3, 5)) == RangeResponse(b"ab", 6)


@pytest.mark.parametrize(
    ("status", "headers", "body", "reason", "detail"),
    [
        (403, {}, b"", "forbidden", "403 Forbidden"),
        (401, {}, b"", "forbidden", "401 Unauthorized"),
        (429, {}, b"", "rate_limit", "429 Too Many Requests"),
        (500, {}, b"", "server_error", "500 Internal Server Error"),
        (503, {}, b"", "server_error", "503 Service Unavailable"),
        (599, {}, b"", "server_error", "599"),
        (200, {}, b"<html>busy</html>", "error_page", "a page of HTML, not a GeoTIFF"),
        (200, {}, b'\n<?xml version="1.0"?><Error/>', "error_page", "a page of XML, not a GeoTIFF"),
        (206, part(0, 17, 17), b"<html>busy</html>", "error_page", "a page of HTML, not a GeoTIFF"),
        (206, part(0, 4, 99), b"II", "timeout", "the answer was cut off"),
        (206, part(5, 9, 99), b"abcd", "server_error", "another range than the one asked for"),
        (206, {}, b"abcd", "server_error", "another range than the one asked for"),
    ],
)
def test_what_another_try_may_not_meet_is_transient(status, headers, body, reason, detail):
    with pytest.raises(TransientError) as caught:
        check_response(status, headers, body, (0, 4 if "Range" in str(headers) and len(body) < 5 else 100))
    assert (caught.value.reason, caught.value.detail) == (reason, detail)


@pytest.mark.parametrize(
    ("status", "headers", "body", "detail"),
    [
        (404, {}, b"", "the file does not exist"),
        (410, {}, b"", "the file does not exist"),
        (416, {"Content-Range": "bytes */0"}, b"", "the file is empty"),
        (416, {"Content-Range": "bytes */40"}, b"", "the file of 40 bytes is cut off: byte 59 is wanted"),
        (416, {}, b"", "the file is cut off: byte 59 is wanted"),
        (206, part(50, 55, 55), b"abcde", "the file of 55 bytes is cut off: byte 59 is wanted"),
        (200, {"Content-Length": "55"}, b"I" * 55, "the file of 55 bytes is cut off: byte 59 is wanted"),
        (200, {"Content-Length": "0"}, b"", "the file is empty"),
    ],
)
def test_a_file_that_is_no_good_is_so_at_once(status, headers, body, detail):
    with pytest.raises(UnreadableError) as caught:
        check_response(status, headers, body, (50, 60))
    assert (caught.value.reason, caught.value.detail) == ("unreadable", detail)
