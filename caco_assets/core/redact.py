"""Removes secrets from messages."""

from __future__ import annotations

import re

_QUERY = re.compile(r"\?[^\s'\"<>]*")
_USER = re.compile(r"(?<=://)[^/\s@]+@")


def without_secrets(text: str) -> str:
    """The message without query strings of addresses (which may hold tokens), user names and passwords."""
    return _USER.sub("", _QUERY.sub("", text)) if "://" in text else text
