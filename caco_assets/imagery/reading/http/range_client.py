"""Reads byte ranges of files over HTTP: many at a time, each again after a hiccup, with a word on whose fault a failure is.

Requests run on an event loop in a thread of their own; callers are plain threads that hand in a batch of ranges and wait for it.
What is a file's fault ends in an `UnreadableError` (the chip goes to quarantine), what is the provider's in a `UserError` (the
work stops and can be continued): see `docs/decisions/0008-whose-fault-is-a-failed-request.md`.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from caco_assets.core.errors import UserError
from caco_assets.core.http_retry import backoff_s, retry_after
from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.reading.http.range_response import Piece, Span, TransientError, check_answer
from caco_assets.observability.metrics import count

if TYPE_CHECKING:
    import aiohttp

Sign = Callable[[str], str]


@dataclass(frozen=True)
class Patience:
    """How long to bear with a provider."""

    attempts: int = 8
    """Requests for one range before the failure is taken for lasting: with one failure in ten, once in 10⁸."""
    first_wait_s: float = 0.4
    """At most, before the second attempt; doubled for each further one: 25 s altogether on average."""
    longest_wait_s: float = 30.0
    """Most that is waited between two attempts, also when a provider's Retry-After asks for more."""
    silence_s: float = 30.0
    """No connection, or no byte of an answer, for so long is a time-out."""
    slowest_bytes_per_s: float = 20_000.0
    """An answer that comes slower than this on the whole is a time-out too."""


@dataclass
class Counts:
    """What went over the wire."""

    requests: int = 0
    repeats: int = 0
    """Attempts after the first of a range."""
    bytes: int = 0
    """Of the bodies that were used."""


class Fetcher:
    """A client for one run of work; use it as a context manager."""

    def __init__(self, connections: int, sign: Sign = str, landmarks: Sequence[str] = (), patience: Patience | None = None) -> None:
        """`landmarks`: other files of the providers; whether they answer tells a broken file from a broken provider."""
        self.counts = Counts()
        self._connections, self._sign, self._patience = connections, sign, patience or Patience()
        self._landmarks: dict[str, dict[str, None]] = {}
        for href in landmarks:
            self._landmarks.setdefault(urlsplit(href).netloc, {})[href] = None
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

    def get(self, wants: Sequence[tuple[str, Span]]) -> list[Piece | UnreadableError]:
        """The byte ranges, in their order; in place of one that cannot be had, why.

        Args:
            wants: address (signed here, before each attempt) and half-open range of bytes; a range may reach beyond the end of
                the file if it starts at 0.

        Raises:
            UserError: the provider does not answer, refuses everything, or limits the rate.
        """
        return asyncio.run_coroutine_threadsafe(self._all(wants), self._loop).result()

    def stop(self) -> None:
        """End what is under way: the threads that wait for it, and any that ask later, get a `CancelledError`."""
        self._stopped = True
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result()

    async def _open(self) -> None:
        import aiohttp

        self._slots = asyncio.Semaphore(self._connections)
        # the slots limit the connections: a request that waits for one is not yet on the clock
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=60)
        # compressed once more, a range would not be that range
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

    async def _all(self, wants: Sequence[tuple[str, Span]]) -> list[Piece | UnreadableError]:
        if self._stopped:
            raise asyncio.CancelledError
        tasks = [asyncio.ensure_future(self._one(href, span)) for href, span in wants]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _one(self, href: str, span: Span) -> Piece | UnreadableError:
        try:
            return await self._patiently(href, span, self._patience.attempts)
        except TransientError as error:
            return await self._blame(href, error)
        except UnreadableError as error:
            return error

    async def _patiently(self, href: str, span: Span, attempts: int) -> Piece:
        host, patience = urlsplit(href).netloc, self._patience
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
            landmarks = self._landmarks.setdefault(host, {})
            if len(landmarks) < _LANDMARKS:
                landmarks[href] = None
            return piece
        raise AssertionError("attempts is at least 1")

    async def _gate(self, host: str) -> None:
        """Wait as long as the provider has asked for: all requests to it, not only the one it told."""
        while (wait := self._pause_until.get(host, 0.0) - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    async def _ask(self, href: str, span: Span) -> Piece:
        import aiohttp

        patience = self._patience
        whole = patience.silence_s + (span[1] - span[0]) / patience.slowest_bytes_per_s
        limits = aiohttp.ClientTimeout(total=whole, sock_connect=patience.silence_s, sock_read=patience.silence_s)
        try:
            address = href if self._sign is str else await asyncio.to_thread(self._sign, href)
            headers = {"Range": f"bytes={span[0]}-{span[1] - 1}"}
            proxy = proxy_for(urlsplit(address).scheme, urlsplit(address).hostname or "")
            async with self._session.get(address, headers=headers, timeout=limits, proxy=proxy) as response:
                wait = retry_after(response.headers)
                return check_answer(response.status, response.headers, await _body(response, span), span, wait)
        except TimeoutError as error:
            raise TransientError("timeout", "no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransientError("timeout", _plain(error)) from error

    async def _blame(self, href: str, error: TransientError) -> UnreadableError:
        """A failure that outlasted all attempts: the file's, if its provider still answers for another file.

        Raises:
            UserError: the provider's.
        """
        host, name = urlsplit(href).netloc, PurePosixPath(urlsplit(href).path).name
        others = [other for other in self._landmarks.get(host, {}) if other != href] or [href]
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
            await self._patiently(href, (0, 16), _PROBE_ATTEMPTS)
        except (TransientError, UnreadableError):
            return False
        return True


_BUFFER = 4 << 20
"""Bytes of an answer that are taken in before they are asked for: with less, a large one comes in many small steps."""
_LANDMARKS = 8
"""Files that answered are remembered up to this number for each provider."""
_PROBES = 3
_PROBE_ATTEMPTS = 3
_ADVICE = {
    "rate_limit": "; it limits the rate: lower imagery.connections",
    "forbidden": "; check imagery.source and its access keys",
}


async def _body(response: aiohttp.ClientResponse, span: Span) -> bytes:
    """The body; of a server that sends the whole file in place of a range, no more than is needed."""
    if response.status != _WHOLE_FILE:
        return await response.read()
    read: Callable[[], Awaitable[bytes]] = response.content.readany
    parts, size = [], 0
    while size < span[1] and (part := await read()):
        parts.append(part)
        size += len(part)
    if size < span[1] and response.content_length is not None and size < response.content_length:
        raise TransientError("timeout", "the answer was cut off")
    if not response.content.at_eof():
        response.close()
    return b"".join(parts)


_WHOLE_FILE = 200


@cache
def proxy_for(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for a host (`https_proxy`, `no_proxy`): aiohttp would look it up for each request."""
    return None if proxy_bypass(host) else getproxies().get(scheme)


def _plain(error: Exception) -> str:
    """What broke, in words that do not depend on addresses or ports."""
    import aiohttp

    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer was cut off"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "no connection"
    return "the connection broke"
