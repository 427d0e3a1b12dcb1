"""When to repeat a failed HTTP request: what the server asks for in `Retry-After`, else exponential backoff with jitter."""

from __future__ import annotations

import random
from collections.abc import Mapping

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

# urllib3 cuts longer waits; callers set their own limit
_HEADERS = Retry(retry_after_max=10**9)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, as a number or a date (RFC 9110, section 10.2.3); None without a valid header."""
    text = headers.get("Retry-After")
    if text is None:
        return None
    try:
        return _HEADERS.parse_retry_after(text)
    except (InvalidHeader, ValueError, OverflowError):  # an invalid date
        return None


def backoff_s(failures: int, first_s: float, longest_s: float, rng: random.Random) -> float:
    """Seconds to wait after `failures` failures: random, up to `first_s`, doubled for each further failure up to `longest_s`.

    "Full jitter" (Brooker, "Exponential Backoff And Jitter", AWS 2015): clients that failed together do not retry together.
    """
    return rng.uniform(0, min(longest_s, first_s * 2 ** (failures - 1)))
