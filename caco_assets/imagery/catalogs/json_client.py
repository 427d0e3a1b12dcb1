"""JSON over HTTP: transient errors are retried with a line of progress each, permanent ones stop at once."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from caco_assets.core.errors import UserError
from caco_assets.core.http_retry import backoff_s, retry_after
from caco_assets.core.redact import without_secrets

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


class ServerError(UserError):
    """A request that failed for good; `status` is the response's, None without a usable response."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


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
    ) -> None:
        """`seed` of the waiting times: None (many workers must not retry together), a number in tests."""
        self._attempts, self._sleep, self._timeout = attempts, sleep, timeout_s
        self._random = random.Random(seed)
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=connections))

    def ask(self, request: requests.Request) -> Any:
        """The JSON of the response.

        Raises:
            ServerError: the server refuses, or sends no JSON in any attempt; one line, without the query part of the address (it
                may hold a key).
        """
        address = without_secrets(str(request.url))
        failures = 0
        while True:
            try:
                return self._once(request, address)
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

    def _once(self, request: requests.Request, address: str) -> Any:
        try:
            prepared = self._session.prepare_request(request)
            settings = self._session.merge_environment_settings(prepared.url or "", {}, None, None, None)
            answer = self._session.send(prepared, timeout=self._timeout, **settings)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _TransientError(_why(error)) from error
        except requests.RequestException as error:
            raise ServerError(f"{address}: cannot be asked ({type(error).__name__}); check the address") from error
        status, line = answer.status_code, f"answers {answer.status_code} {answer.reason or ''}".strip()
        if status in RETRIED:
            wait_s = retry_after(answer.headers)
            if wait_s is not None and wait_s > LONGEST_ASKED_S:
                raise ServerError(f"{address}: {line} and asks to come back in {wait_s / 60:.0f} minutes", status)
            raise _TransientError(f"{line}{_said(answer)}", status, wait_s)
        if not answer.ok:
            raise ServerError(f"{address}: {line}{_said(answer)}", status)
        try:
            return answer.json()
        except requests.JSONDecodeError as error:
            page = answer.content.lstrip()[:1] == b"<"
            what = "a page of HTML or XML instead of JSON" if page else "something that is no JSON"
            raise _TransientError(f"answers with {what}", status) from error


def _said(answer: requests.Response) -> str:
    """The server's error message in one short line."""
    try:
        content = answer.json()
    except requests.JSONDecodeError:
        return ""
    if not isinstance(content, dict):
        return ""
    text = next((content[key] for key in ("description", "detail", "message", "error") if isinstance(content.get(key), str)), "")
    return f" ({' '.join(text.split())[:160]})" if text else ""


def _why(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "does not answer in time"
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
        if "aborted" in text.lower() or "IncompleteRead" in text
        else f"cannot be reached ({type(error).__name__})"
    )
