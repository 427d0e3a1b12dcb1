"""Responses of a STAC API on disk, so that an interrupted planning resumes where it stopped."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from caco_assets.core.atomic import write_atomic

SETTLED = timedelta(days=60)
"""Providers add and reprocess scenes for weeks: a response is final when it is this much later than the last requested date."""
FRESH = timedelta(days=1)
"""How long a response that is not final is used."""

Item = dict[str, Any]
_FORM = 2
"""Of the files. Those of form 1 may hold errors of servers as empty responses: they are not used."""


class RequestCache:
    """One compressed JSON file per response, written atomically."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, question: Mapping[str, Any], last: datetime, now: datetime | None = None) -> list[Item] | None:
        """The items of a response whose search ended with the date `last`; None if it is missing or expired."""
        path = self._path(question)
        try:
            content = json.loads(gzip.decompress(path.read_bytes()))
            if content["form"] != _FORM:
                return None
            asked, items = datetime.fromisoformat(content["asked"]), list(content["items"])
            age, settled = (now or datetime.now(UTC)) - asked, asked - last >= SETTLED
        except (OSError, EOFError, zlib.error, ValueError, LookupError, TypeError, RecursionError):
            # missing, truncated by a full disk, or not ours: request it again
            return None
        return items if settled or age < FRESH else None

    def put(self, question: Mapping[str, Any], items: list[Item], now: datetime | None = None) -> None:
        """Store a response."""
        content = {"form": _FORM, "asked": (now or datetime.now(UTC)).isoformat(), "items": items}
        path = self._path(question)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, gzip.compress(json.dumps(content, separators=(",", ":")).encode(), compresslevel=3, mtime=0))

    def _path(self, question: Mapping[str, Any]) -> Path:
        key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
        return self._folder / key[:2] / f"{key[:32]}.json.gz"
