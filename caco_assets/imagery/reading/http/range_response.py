"""Checks the HTTP response to a ranged request: bytes, a retryable error, or an unusable file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from caco_assets.imagery.reading.gdal import UnreadableError, page_kind

Span = tuple[int, int]
"""Half-open range of bytes."""
_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_LONGEST_NUMBER = 19
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True)
class FileVersion:
    """What a provider's headers say about the state of a file."""

    etag: str | None
    modified: str | None
    """`Last-Modified`."""
    size: int

    def differs(self, other: FileVersion) -> bool:
        """Whether the file was replaced between two responses, as far as their headers tell.

        Machines of one provider may give a file different ETags: one that differs counts only where the dates do not agree.
        """
        dated = self.modified is not None and other.modified is not None
        if self.size != other.size:
            return True
        if self.etag is not None and other.etag is not None:
            return self.etag != other.etag and not (dated and self.modified == other.modified)
        return dated and self.modified != other.modified


@dataclass(frozen=True)
class RangeResponse:
    """Bytes of a file."""

    data: bytes
    size: int
    """Of the whole file."""
    version: FileVersion | None = field(default=None, compare=False)
    """Of the file that the bytes are of."""


class ChangedFileError(UnreadableError):
    """The file is no longer the one whose index was read."""

    def __init__(self, reason: str = "unreadable", detail: str = "the file changed while it was read") -> None:
        super().__init__(reason, detail)


class TransientError(Exception):
    """A failure that a retry may fix."""

    def __init__(self, reason: str, detail: str, wait_s: float | None = None) -> None:
        """`reason`: code of `quarantine.parquet` if it persists; `wait_s`: the provider's Retry-After."""
        super().__init__(detail)
        self.reason, self.detail, self.wait_s = reason, detail, wait_s


def check_response(status: int, headers: Mapping[str, str], body: bytes, span: Span, wait_s: float | None = None) -> RangeResponse:
    """The bytes of the range.

    Args:
        status: of the response.
        headers: of the response.
        body: with status 206 all of it, with 200 at least up to the end of the range; with others it is not looked at.
        span: the requested range; one from 0 may reach beyond the end of the file.
        wait_s: the response's Retry-After.

    Raises:
        TransientError: `rate_limit`, `forbidden`, `server_error`, `error_page` or `timeout` (cut off).
        UnreadableError: the file is missing, is empty, or ends before the range.
    """
    if status == HTTPStatus.PARTIAL_CONTENT:
        return _part(headers, body, span)
    if status == HTTPStatus.OK:
        return _whole(headers, body, span)
    if status in _GONE:
        raise UnreadableError("unreadable", "the file does not exist")
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise _ends_early(_total(headers), span)
    line = f"{status} {_phrase(status)}".strip()
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        raise TransientError("rate_limit", line, wait_s)
    raise TransientError("forbidden" if status in _REFUSED else "server_error", line, wait_s)


def _part(headers: Mapping[str, str], body: bytes, span: Span) -> RangeResponse:
    size = _total(headers)
    if size is None or not headers.get("Content-Range", "").startswith(f"bytes {span[0]}-"):
        raise TransientError("server_error", "another range than the one asked for")
    if span[0] > 0 and size < span[1]:
        raise _ends_early(size, span)
    if len(body) != min(span[1], size) - span[0]:
        raise TransientError("timeout", "the answer was cut off")
    _refuse_page(body, span)
    return RangeResponse(body, size, _version(headers, size))


def _whole(headers: Mapping[str, str], body: bytes, span: Span) -> RangeResponse:
    """The server does not support ranges, or sends an error page."""
    _refuse_page(body, (0, len(body)))
    size = _digits(headers.get("Content-Length"))
    size = len(body) if size is None else size
    if not body or (span[0] > 0 and size < span[1]):
        raise _ends_early(size, span)
    return RangeResponse(body[span[0] : span[1]], size, _version(headers, size))


def _refuse_page(body: bytes, span: Span) -> None:
    if span[0] == 0 and (kind := page_kind(body[:512])):
        raise TransientError("error_page", f"a page of {kind}, not a GeoTIFF")


def _ends_early(size: int | None, span: Span) -> UnreadableError:
    if size == 0:
        return UnreadableError("unreadable", "the file is empty")
    known = "" if size is None else f" of {size} bytes"
    return UnreadableError("unreadable", f"the file{known} is cut off: byte {span[1] - 1} is wanted")


def _total(headers: Mapping[str, str]) -> int | None:
    """Size of the file, from `Content-Range: bytes 0-99/1234`."""
    return _digits(headers.get("Content-Range", "").rpartition("/")[2])


def _digits(text: str | None) -> int | None:
    """The number that a header holds; None if it holds none that a file's size could be."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER else None


def _version(headers: Mapping[str, str], size: int) -> FileVersion:
    return FileVersion(headers.get("ETag"), headers.get("Last-Modified"), size)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
