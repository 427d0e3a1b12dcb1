"""Takes secrets out of messages."""

from __future__ import annotations

import re

_QUERY = re.compile(r"\?[^\s'\"<>]*")
_USER = re.compile(r"(?<=://)[^/\s@]+@")


def without_secrets(text: str) -> str:
    """A message without the query part of addresses (tokens stand there) and without user names and passwords."""
    return _USER.sub("", _QUERY.sub("", text)) if "://" in text else text
