"""Headers and addresses that no server should send and no item should hold."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import Reply

from caco_assets.core.errors import UserError
from caco_assets.core.http_retry import retry_after
from caco_assets.imagery.catalogs.json_client import JsonClient
from caco_assets.imagery.catalogs.stac_api import StacApi
from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.reading.http.range_client import Fetcher, RetryPolicy
from caco_assets.imagery.reading.http.range_response import FileVersion, TransientError, check_response
from caco_assets.settings import StacApiSource

_YEAR = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC))
HASTE = RetryPolicy(attempts=2, first_wait_s=0.01, longest_wait_s=0.02, silence_s=0.5)
NUMBERS = st.one_of(st.integers().map(str), st.sampled_from(["", "²", "٣", "nan", "-1", "1e9", "0x10", "9" * 5000, " 7 "]))
TEXT = st.one_of(st.text(max_size=30), NUMBERS)
RANGES = st.one_of(TEXT, st.builds("bytes {}-{}/{}".format, NUMBERS, NUMBERS, NUMBERS))
HEADERS = st.fixed_dictionaries(
    {}, optional={"Content-Range": RANGES, "Content-Length": NUMBERS, "ETag": TEXT, "Last-Modified": TEXT, "Retry-After": TEXT}
)


@given(st.integers(100, 999), HEADERS, st.binary(max_size=64), st.integers(0, 40), st.integers(1, 40))
def test_whatever_the_headers_say_a_response_is_bytes_or_a_reason(status, headers, body, start, length):
    try:
        found = check_response(status, headers, body, (start, start + length), retry_after(headers))
    except (TransientError, UnreadableError) as error:
        found = error.detail
    assert len(found) < 200 if isinstance(found, str) else len(found.data) <= length


@given(TEXT)
def test_a_retry_after_is_a_time_or_none(text):
    wait = retry_after({"Retry-After": text})
    assert wait is None or wait >= 0


def test_a_file_is_another_when_its_size_or_its_tag_and_date_say_so():
    one = FileVersion('"a"', "Mon", 9)
    assert not one.differs(one)
    assert one.differs(FileVersion('"a"', "Mon", 10))
    assert one.differs(FileVersion('"b"', "Tue", 9))
    assert not one.differs(FileVersion('"b"', "Mon", 9)), "two machines of one provider tag one file in two ways"
    assert one.differs(FileVersion('"b"', None, 9))
    assert one.differs(FileVersion(None, "Tue", 9))
    assert not one.differs(FileVersion(None, None, 9))


ADDRESSES = [
    "http://[", "http://", "https://a..b/x.tif", "http://a:99999/x.tif", "http://a:b/x.tif", f"http://{'a' * 70}.example/x.tif",
    "http:///x.tif", "http://\u2100.example/x.tif", "http://a b/x.tif", "http://%zz/x.tif", "http://user:pw@/x.tif",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_none_refuses_its_file_alone(scripted, address):
    good = Reply(206, {"Content-Range": "bytes 0-3/99"}, b"II*\0")
    server = scripted(lambda _asked: good)
    with Fetcher(2, reference_files=[address, f"{server.url}/b.tif"], patience=HASTE) as fetcher:
        try:
            odd, fine = fetcher.get([(address, (0, 4)), (f"{server.url}/a.tif", (0, 4))])
        except UserError as error:  # a host that nobody knows is a provider that does not answer
            odd, fine = error, good.body
        else:
            fine = fine.data
    assert isinstance(odd, UnreadableError) or "the provider does not serve its files" in str(odd)
    assert fine == b"II*\0"


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_api_at_an_address_that_is_none_is_one_line(address):
    with pytest.raises(UserError, match=r"imagery\.source\.url") as caught:
        StacApi(StacApiSource(url=address), ("B02",), client=JsonClient(attempts=1))
    assert "\n" not in str(caught.value)
    assert "pw@" not in str(caught.value)


RAW = {
    "no status": b"hello\r\n\r\n",
    "a status that is none": b"HTTP/1.1 abc OK\r\n\r\n",
    "a length that is none": b"HTTP/1.1 206 Partial\r\nContent-Length: abc\r\nContent-Range: bytes 0-3/99\r\n\r\nII*\0",
    "two lengths": b"HTTP/1.1 206 Partial\r\nContent-Length: 4\r\nContent-Length: 5\r\nContent-Range: bytes 0-3/99\r\n\r\nII*\0",
    "a header without end": b"HTTP/1.1 206 Partial\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "a thousand headers": b"HTTP/1.1 206 Partial\r\n" + b"".join(b"X%d: a\r\n" % n for n in range(40_000)) + b"\r\n",
    "chunks that are none": b"HTTP/1.1 206 Partial\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 0-3/99\r\n\r\nzz\r\nII*\0",
    "a cookie that is none": b"HTTP/1.1 206 Partial\r\nSet-Cookie: \x01=;;=\r\nContent-Length: 0\r\n\r\n",
    "a way to nowhere": b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
    "a way to a file": b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    "a way in a circle": b"HTTP/1.1 302 Found\r\nLocation: /file.tif\r\nContent-Length: 0\r\n\r\n",
    "a packed body": b"HTTP/1.1 206 Partial\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\nContent-Range: bytes 0-3/9\r\n\r\nab",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", RAW)
def test_a_response_that_is_no_http_refuses_its_file_alone(scripted, kind):
    good = Reply(206, {"Content-Range": "bytes 0-15/99"}, b"II*\0" * 4)
    server = scripted(lambda asked: Reply(raw=RAW[kind]) if asked.path == "/file.tif" else good)
    with Fetcher(2, reference_files=[f"{server.url}/other.tif"], patience=HASTE) as fetcher:
        odd, fine = fetcher.get([(f"{server.url}/file.tif", (0, 4)), (f"{server.url}/a.tif", (0, 16))])
    assert isinstance(odd, UnreadableError)
    assert "\n" not in odd.detail
    assert fine.data == b"II*\0" * 4


@pytest.mark.parametrize("kind", RAW)
def test_a_search_answered_by_no_http_is_one_line(stac_api_of, kind):
    server = stac_api_of(lambda _asked: Reply(raw=RAW[kind]))
    with pytest.raises(UserError) as caught:
        StacApi(StacApiSource(url=server.url), ("B02",), client=JsonClient(attempts=1)).search((2, 42, 3, 43), _YEAR)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
