"""JSON over HTTP: transient errors are retried with a line of progress each, permanent ones stop at once, responses are bounded."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import DecodeError, HTTPError, ReadTimeoutError

from caco_assets.core.errors import UserError
from caco_assets.core.http_retry import backoff_s, retry_after
from caco_assets.core.redact import without_secrets
from caco_assets.settings import ServerLimits

logger = logging.getLogger(__name__)

RETRIED = frozenset({403, 408, 425, 429, 500, 502, 503, 504})
"""Statuses that another attempt may change; 403 because providers also send it to clients that exceed the rate limit."""
ATTEMPTS = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 60.0
SPREAD_S = 1.0
"""Added at random to a Retry-After, so that clients do not retry together."""
LONGEST_ASKED_S = 900.0
"""A server whose Retry-After exceeds this counts as out of service."""
TIMEOUT_S = (10.0, 120.0)
"""To connect, and between two bytes of the response: large searches take half a minute."""
TOO_LARGE = 413
"""Status of a response that is larger than allowed, as of one that the server itself does not send."""
_BLOCK = 1 << 14
_ERROR_BYTES = 1 << 16
"""Bytes read of an error's response, for its message."""


class ServerError(UserError):
    """A request that failed for good; `status` is the response's, None without a usable response."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """A response that was read whole."""

    content: Any
    """Its JSON."""
    size: int
    """Bytes, unpacked."""


Complaint = Callable[[Any], str | None]
"""What is wrong with the JSON of a response; None: nothing."""


class _TransientError(Exception):
    """A retryable error; `wait_s` is the server's Retry-After."""

    def __init__(self, text: str, status: int | None = None, wait_s: float | None = None) -> None:
        super().__init__(text)
        self.status, self.wait_s = status, wait_s


class JsonClient:
    """Requests with retries; threads may share it.

    The attempts are counted here and not by an adapter of urllib3's: that one sees a response only up to its headers, and a body
    that is cut off, or a page of HTML with status 200, is a failed attempt as well.
    """

    def __init__(
        self,
        *,
        connections: int = 4,
        attempts: int = ATTEMPTS,
        seed: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
        timeout_s: tuple[float, float] = TIMEOUT_S,
        limits: ServerLimits | None = None,
    ) -> None:
        """`seed` of the waiting times: None (many workers must not retry together), a number in tests."""
        self._attempts, self._sleep, self._timeout = attempts, sleep, timeout_s
        self._limits = limits or ServerLimits()
        self._random = random.Random(seed)
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=connections))

    def ask(self, request: requests.Request) -> Any:
        """The JSON of the response; see `answer`."""
        return self.answer(request).content

    def answer(self, request: requests.Request, complaint: Complaint = lambda _content: None) -> Answer:
        """The response as JSON.

        Args:
            request: to send.
            complaint: checks the JSON; a response with a complaint is a failed attempt.

        Raises:
            ServerError: the server refuses, sends too much, or sends no JSON without a complaint in any attempt; one line, without
                the query part of the address (it may hold a key).
        """
        address = without_secrets(str(request.url))
        failures = 0
        while True:
            try:
                return self._once(request, address, complaint)
            except _TransientError as error:
                failures += 1
                if failures == self._attempts:
                    tries = "once" if failures == 1 else f"{failures} times"
                    again = "wait a while and run the same command again, it continues"
                    raise ServerError(f"{address}: {error} (asked {tries}); {again}", error.status) from error
                if error.wait_s is None:
                    wait_s = backoff_s(failures, FIRST_WAIT_S, LONGEST_WAIT_S, self._random)
                else:
                    wait_s = error.wait_s + self._random.uniform(0, SPREAD_S)
                logger.info(f"{address}: {error}; try {failures + 1} of {self._attempts} in {wait_s:.1f} s")
                self._sleep(wait_s)

    def _once(self, request: requests.Request, address: str, complaint: Complaint) -> Answer:
        try:
            prepared = self._session.prepare_request(request)
            settings = self._session.merge_environment_settings(prepared.url or "", {}, True, None, None)
            response = self._session.send(prepared, timeout=self._timeout, **settings)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _TransientError(_why(error)) from error
        # some odd addresses are refused by the libraries below requests
        except (requests.RequestException, HTTPError, ValueError) as error:
            raise ServerError(f"{address}: cannot be asked ({type(error).__name__}); check the address") from error
        with closing(response):
            self._check_status(response, address)
            body = self._body(response, address)
        try:
            content = json.loads(body)
        # a text that is no UTF-8 and a number of thousands of digits are ValueErrors too
        except (ValueError, RecursionError) as error:
            page = body.lstrip()[:1] == b"<"
            what = "a page of HTML or XML instead of JSON" if page else "something that is no JSON"
            raise _TransientError(f"answers with {what}", response.status_code) from error
        if found := complaint(content):
            raise _TransientError(f"{found}{_said(content)}", response.status_code)
        return Answer(content, len(body))

    def _check_status(self, response: requests.Response, address: str) -> None:
        status, line = response.status_code, f"answers {response.status_code} {response.reason or ''}".strip()
        if status in RETRIED:
            wait_s = retry_after(response.headers)
            if wait_s is not None and wait_s > LONGEST_ASKED_S:
                raise ServerError(f"{address}: {line} and asks to come back in {wait_s / 60:.0f} minutes", status)
            raise _TransientError(f"{line}{_said(self._error(response, address))}", status, wait_s)
        if not response.ok:
            raise ServerError(f"{address}: {line}{_said(self._error(response, address))}", status)

    def _error(self, response: requests.Response, address: str) -> Any:
        """The JSON of an error's response; None without one."""
        try:
            return json.loads(self._body(response, address, _ERROR_BYTES))
        except (ServerError, _TransientError, ValueError, RecursionError):
            return None

    def _body(self, response: requests.Response, address: str, most: int | None = None) -> bytes:
        """The response, unpacked, never more of it in memory than is allowed."""
        limits = self._limits
        most = limits.response_bytes if most is None else most
        parts, size, end = [], 0, time.monotonic() + 60 * limits.response_minutes
        try:
            # a read of whatever has come: one that waits for a full block would not see the time pass
            while part := response.raw.read1(_BLOCK, decode_content=True):
                parts.append(part)
                size += len(part)
                if size > most:
                    raise ServerError(
                        f"{address}: sends more than {limits.response_mb:g} MB in one response; raise "
                        "imagery.limits.response_mb if that is right",
                        TOO_LARGE,
                    )
                if time.monotonic() > end:
                    raise _TransientError(f"takes more than {limits.response_minutes:g} minutes for one response")
        # broken connections, and packed bodies that cannot be unpacked
        except (requests.RequestException, HTTPError, OSError) as error:
            raise _TransientError(_why(error)) from error
        return b"".join(parts)


def _said(content: Any) -> str:
    """The server's error message in one short line."""
    if not isinstance(content, dict):
        return ""
    text = next((content[key] for key in ("description", "detail", "message", "error") if isinstance(content.get(key), str)), "")
    return f" ({' '.join(text.split())[:160]})" if text else ""


def _why(error: Exception) -> str:
    if isinstance(error, requests.Timeout | ReadTimeoutError):
        return "does not answer in time"
    if isinstance(error, DecodeError):
        return "sends a packed response that cannot be unpacked"
    text = str(error)
    for clue, meaning in (
        ("refused", "no server answers there"),
        ("resolve", "its name is not known"),
        ("reset", "cuts the connection"),
    ):
        if clue in text.lower():
            return meaning
    return (
        "cuts the connection"
        if "aborted" in text.lower() or "IncompleteRead" in text or "broken" in text
        else f"cannot be reached ({type(error).__name__})"
    )
