"""Asks servers for JSON, patiently: limits, outages and cut connections are waited out, what cannot heal stops at once."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from caco_assets.core.errors import UserError

logger = logging.getLogger(__name__)


HEALING = frozenset({403, 408, 425, 429, 500, 502, 503, 504})
"""Answers that another try may change; 403 because providers also send it to those who ask too fast."""
ATTEMPTS = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
LONGEST_ASKED_S = 900.0
"""A server that asks (Retry-After) for more than this is taken to be out of service."""
TIMEOUT_S = (10.0, 120.0)
"""To connect, and between two bytes of the answer: large searches take half a minute."""


class ServerError(UserError):
    """The last word of a server; `status` is the answer's, none where there was no answer of use."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _PassingError(Exception):
    """Worth another try: `wait_s` is what the server asked for."""

    def __init__(self, text: str, status: int | None = None, wait_s: float | None = None) -> None:
        super().__init__(text)
        self.status, self.wait_s = status, wait_s


class JsonClient:
    """Requests with patience; may be used by several threads."""

    def __init__(
        self,
        *,
        connections: int = 4,
        attempts: int = ATTEMPTS,
        seed: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
        timeout_s: tuple[float, float] = TIMEOUT_S,
    ) -> None:
        """`seed` of the waiting times: none (many workers must not come back together), a number in tests."""
        self._attempts, self._sleep, self._timeout = attempts, sleep, timeout_s
        self._random = random.Random(seed)
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=connections))

    def ask(self, request: requests.Request) -> Any:
        """The answer's JSON.

        Raises:
            ServerError: the server refuses, or does not answer with JSON after the last attempt; one line, without the query
                part of the address (it may hold a key).
        """
        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=self._wait,
            retry=retry_if_exception_type(_PassingError),
            sleep=self._sleep,
            before_sleep=lambda state: self._announce(request, state),
            reraise=True,
        )
        try:
            return retrying(self._once, request)
        except _PassingError as error:
            tries = "once" if self._attempts == 1 else f"{self._attempts} times"
            again = "wait a while and run the same command again, it continues"
            raise ServerError(f"{place_of(request)}: {error} (asked {tries}); {again}", error.status) from error

    def _once(self, request: requests.Request) -> Any:
        try:
            prepared = self._session.prepare_request(request)
            settings = self._session.merge_environment_settings(prepared.url or "", {}, None, None, None)
            answer = self._session.send(prepared, timeout=self._timeout, **settings)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _PassingError(_why(error)) from error
        except requests.RequestException as error:
            raise ServerError(f"{place_of(request)}: cannot be asked ({type(error).__name__}); check the address") from error
        status, line = answer.status_code, f"answers {answer.status_code} {answer.reason or ''}".strip()
        if status in HEALING:
            wait_s = _asked_wait(answer.headers.get("Retry-After"))
            if wait_s is not None and wait_s > LONGEST_ASKED_S:
                raise ServerError(f"{place_of(request)}: {line} and asks to come back in {wait_s / 60:.0f} minutes", status)
            raise _PassingError(f"{line}{_said(answer)}", status, wait_s)
        if not answer.ok:
            raise ServerError(f"{place_of(request)}: {line}{_said(answer)}", status)
        try:
            return answer.json()
        except requests.JSONDecodeError as error:
            page = answer.content.lstrip()[:1] == b"<"
            what = "a page of HTML or XML instead of JSON" if page else "something that is no JSON"
            raise _PassingError(f"answers with {what}{_said(answer)}", status) from error

    def _wait(self, state: RetryCallState) -> float:
        """What the server asked for and a little more; else full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015)."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait_s if isinstance(error, _PassingError) else None
        if asked is not None:
            return asked + self._random.uniform(0, FIRST_WAIT_S)
        return self._random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**state.attempt_number))

    def _announce(self, request: requests.Request, state: RetryCallState) -> None:
        error, wait_s = state.outcome.exception() if state.outcome else None, state.next_action.sleep if state.next_action else 0.0
        logger.info(f"{place_of(request)}: {error}; try {state.attempt_number + 1} of {self._attempts} in {wait_s:.1f} s")


def place_of(request: requests.Request) -> str:
    """The address without what may be secret: user, password, query."""
    parts = urlsplit(str(request.url))
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def _asked_wait(header: str | None) -> float | None:
    """Seconds of a Retry-After (RFC 9110, 10.2.3: a number or a date); none when there is none, or no sense in it."""
    if not header:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _said(answer: requests.Response) -> str:
    """What the server says of it, in one short line."""
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
