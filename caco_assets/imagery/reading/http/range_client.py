"""Reads byte ranges of files over HTTP: many at a time, retries transient errors, and tells file errors from provider outages.

Requests run on an event loop in its own thread; callers are plain threads that hand in a batch of ranges and wait for it.
A file error is an `UnreadableError` (the chip goes to quarantine), a provider outage a `UserError` (the run stops and can be
resumed): see `docs/decisions/0008-whose-fault-is-a-failed-request.md`.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from caco_assets.core.errors import UserError
from caco_assets.core.http_retry import backoff_s, retry_after
from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.reading.http.range_response import (
    ChangedFileError,
    FileVersion,
    RangeResponse,
    Span,
    TransientError,
    check_response,
)
from caco_assets.observability.metrics import count
from caco_assets.settings import ServerLimits
from caco_assets.settings.imagery_limits import MB

if TYPE_CHECKING:
    import aiohttp

Sign = Callable[[str], str]


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to retry a provider."""

    attempts: int = 8
    """Requests for one range before the failure counts as permanent: with one failure in ten, once in 10⁸."""
    first_wait_s: float = 0.4
    """Maximum wait before the second attempt; doubled for each further one: 25 s altogether on average."""
    longest_wait_s: float = 30.0
    """Longest wait between two attempts, also when a provider's Retry-After is longer."""
    silence_s: float = 30.0
    """No connection, or no byte of a response, for this long is a timeout."""
    slowest_bytes_per_s: float = 20_000.0
    """A response with a lower average rate counts as a timeout."""


@dataclass
class Counts:
    """Requests and bytes so far."""

    requests: int = 0
    repeats: int = 0
    """Attempts after the first of a range."""
    bytes: int = 0
    """Of the bodies that passed the checks."""


class Fetcher:
    """A client for one run; use it as a context manager."""

    def __init__(
        self,
        connections: int,
        sign: Sign = str,
        reference_files: Sequence[str] = (),
        patience: RetryPolicy | None = None,
        limits: ServerLimits | None = None,
    ) -> None:
        """`reference_files`: other files of the providers; reading them tells file errors from provider outages."""
        self.counts = Counts()
        self._connections, self._sign, self._patience = connections, sign, patience or RetryPolicy()
        self._limits = limits or ServerLimits()
        self._reference_files: dict[str, dict[str, None]] = {}
        for href in reference_files:
            with suppress(UnreadableError):  # an address that is none serves nothing
                self._reference_files.setdefault(_host(href), {})[href] = None
        self._pause_until: dict[str, float] = {}
        self._jitter = random.Random()
        self._stopped = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def get(
        self, wants: Sequence[tuple[str, Span]], versions: Sequence[FileVersion | None] | None = None
    ) -> list[RangeResponse | UnreadableError]:
        """The byte ranges, in order; an `UnreadableError` in place of one that cannot be read.

        Args:
            wants: address (signed here, before each attempt) and half-open range of bytes; a range may reach beyond the end of
                the file if it starts at 0.
            versions: of the files that the ranges were chosen for; a `ChangedFileError` is in place of a range of another version.

        Raises:
            UserError: the provider does not respond, refuses every request, or limits the rate.
        """
        known = versions or [None] * len(wants)
        return asyncio.run_coroutine_threadsafe(self._all(wants, known), self._loop).result()

    def stop(self) -> None:
        """Cancel all requests: threads that wait for them, and later callers, get a `CancelledError`."""
        self._stopped = True
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result()

    async def _open(self) -> None:
        import aiohttp

        self._slots = asyncio.Semaphore(self._connections)
        # the slots limit the connections: a request that waits for one is not yet on the clock
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=60)
        # with content encoding, a range would not be that range
        headers = {"Accept-Encoding": "identity", "User-Agent": "caco_assets"}
        self._session = aiohttp.ClientSession(connector=connector, headers=headers, auto_decompress=False, read_bufsize=_BUFFER)

    async def _close(self) -> None:
        await self._cancel()
        await self._session.close()

    async def _cancel(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _all(
        self, wants: Sequence[tuple[str, Span]], versions: Sequence[FileVersion | None]
    ) -> list[RangeResponse | UnreadableError]:
        if self._stopped:
            raise asyncio.CancelledError
        pairs = zip(wants, versions, strict=True)
        tasks = [asyncio.ensure_future(self._one(href, span, version)) for (href, span), version in pairs]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _one(self, href: str, span: Span, version: FileVersion | None) -> RangeResponse | UnreadableError:
        try:
            _host(href)
            if span[1] - span[0] > self._limits.response_bytes:
                raise UnreadableError("unreadable", f"a part of {(span[1] - span[0]) / MB:.0f} MB {self._too_large()}")
            piece = await self._with_retries(href, span, self._patience.attempts)
            if version is not None and piece.version is not None and piece.version.differs(version):
                raise ChangedFileError
            return piece
        except TransientError as error:
            return await self._attribute_failure(href, error)
        except UnreadableError as error:
            return error

    async def _with_retries(self, href: str, span: Span, attempts: int) -> RangeResponse:
        host, patience = _host(href), self._patience
        for attempt in range(attempts):
            try:
                async with self._slots:
                    await self._gate(host)
                    self.counts.requests += 1
                    self.counts.repeats += attempt > 0
                    count("caco_requests")
                    count("caco_request_repeats", attempt > 0)
                    piece = await self._ask(href, span)
            except TransientError as error:
                if error.wait_s is not None:
                    self._pause_until[host] = time.monotonic() + min(error.wait_s, patience.longest_wait_s)
                if attempt == attempts - 1:
                    raise
                await asyncio.sleep(backoff_s(attempt + 1, patience.first_wait_s, patience.longest_wait_s, self._jitter))
                continue
            self.counts.bytes += len(piece.data)
            count("caco_downloaded_bytes", len(piece.data))
            reference_files = self._reference_files.setdefault(host, {})
            if len(reference_files) < _REFERENCE_FILES:
                reference_files[href] = None
            return piece
        raise AssertionError("attempts is at least 1")

    async def _gate(self, host: str) -> None:
        """Delay all requests to a provider for its Retry-After, not only the one that received it."""
        while (wait := self._pause_until.get(host, 0.0) - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    async def _ask(self, href: str, span: Span) -> RangeResponse:
        import aiohttp

        patience = self._patience
        whole = patience.silence_s + (span[1] - span[0]) / patience.slowest_bytes_per_s
        limits = aiohttp.ClientTimeout(total=whole, sock_connect=patience.silence_s, sock_read=patience.silence_s)
        try:
            address = href if self._sign is str else await asyncio.to_thread(self._sign, href)
            headers = {"Range": f"bytes={span[0]}-{span[1] - 1}"}
            proxy = proxy_for(urlsplit(address).scheme, urlsplit(address).hostname or "")
            async with self._session.get(address, headers=headers, timeout=limits, proxy=proxy) as response:
                body = await self._body(response, span)
                return check_response(response.status, response.headers, body, span, retry_after(response.headers))
        except TimeoutError as error:
            raise TransientError("timeout", "no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransientError("timeout", _plain(error)) from error
        except ValueError as error:  # a host that is none
            raise UnreadableError("unreadable", _NO_ADDRESS) from error

    async def _body(self, response: aiohttp.ClientResponse, span: Span) -> bytes:
        """The body of a part or of a whole file, never more of it in memory than was asked for.

        A server without ranges sends the whole file: of that, no more than up to the end of the range.
        """
        if response.status not in _WITH_BYTES:
            # an error's page is not looked at; a short one is read so that the connection can be used again
            await response.content.read(_ERROR_BYTES)
            if not response.content.at_eof():
                response.close()
            return b""
        whole = response.status == _WHOLE_FILE
        wanted = span[1] if whole else span[1] - span[0]
        if whole and wanted > self._limits.response_bytes:
            response.close()
            raise TransientError("server_error", f"no range but the whole file, and {wanted / MB:.0f} MB {self._too_large()}")
        parts, size = bytearray(), 0
        while size < wanted and (part := await response.content.readany()):
            parts += part
            size += len(part)
        if whole and size < wanted and response.content_length is not None and size < response.content_length:
            raise TransientError("timeout", "the answer was cut off")
        if size > wanted and not whole:
            response.close()
            raise TransientError("server_error", "more bytes than were asked for")
        if not response.content.at_eof():
            if not whole and await response.content.readany():
                response.close()
                raise TransientError("server_error", "more bytes than were asked for")
            response.close()
        return bytes(parts)

    def _too_large(self) -> str:
        return f"of it would be read at once: more than imagery.limits.response_mb={self._limits.response_mb:g}"

    async def _attribute_failure(self, href: str, error: TransientError) -> UnreadableError:
        """A failure that outlasted all attempts is a file error if the provider still serves another file.

        Raises:
            UserError: it does not: a provider outage.
        """
        host, name = _host(href), PurePosixPath(urlsplit(href).path).name
        others = [other for other in self._reference_files.get(host, {}) if other != href] or [href]
        if error.reason != "rate_limit":
            for other in others[-_PROBES:]:
                if await self._answers(other):
                    return UnreadableError(error.reason, f"{name}: {error.detail}, {self._patience.attempts} times")
        raise UserError(
            f"{host}: the provider does not serve its files ({name}: {error.detail}, {self._patience.attempts} times"
            f"{_ADVICE.get(error.reason, '')}); run the same command again later, it continues"
        ) from error

    async def _answers(self, href: str) -> bool:
        try:
            await self._with_retries(href, (0, 16), _PROBE_ATTEMPTS)
        except (TransientError, UnreadableError):
            return False
        return True


_BUFFER = 4 << 20
"""Bytes of a response that are buffered: with fewer, a large one arrives in many small steps."""
_REFERENCE_FILES = 8
"""Maximum served files remembered per provider."""
_PROBES = 3
_PROBE_ATTEMPTS = 3
_ADVICE = {
    "rate_limit": "; it limits the rate: lower imagery.connections",
    "forbidden": "; check imagery.source and its access keys",
}


_WHOLE_FILE = 200
_ERROR_BYTES = 1 << 16
_WITH_BYTES = (_WHOLE_FILE, 206)
_NO_ADDRESS = "its address is none that can be asked"


def _host(href: str) -> str:
    """Host and port of an address.

    Raises:
        UnreadableError: it is no address.
    """
    try:
        host = urlsplit(href).netloc
    except ValueError:
        host = ""
    if not host:
        raise UnreadableError("unreadable", _NO_ADDRESS)
    return host


@cache
def proxy_for(scheme: str, host: str) -> str | None:
    """The proxy that the environment sets for a host (`https_proxy`, `no_proxy`): aiohttp would look it up for each request."""
    return None if proxy_bypass(host) else getproxies().get(scheme)


def _plain(error: Exception) -> str:
    """The error, in words that do not depend on addresses or ports."""
    import aiohttp

    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer was cut off"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "no connection"
    return "the connection broke"
