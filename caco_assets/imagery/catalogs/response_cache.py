"""Responses of a STAC API on disk, so that an interrupted planning resumes where it stopped."""

from __future__ import annotations

import gzip
import hashlib
import json
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


class RequestCache:
    """One compressed JSON file per response, written atomically."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, question: Mapping[str, Any], last: datetime, now: datetime | None = None) -> list[Item] | None:
        """The items of a response whose search ended with the date `last`; None if it is missing or expired."""
        path = self._path(question)
        try:
            content = json.loads(gzip.decompress(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError):
            # truncated by a full disk, or not ours: request it again
            return None
        asked, now = datetime.fromisoformat(content["asked"]), now or datetime.now(UTC)
        return content["items"] if asked - last >= SETTLED or now - asked < FRESH else None

    def put(self, question: Mapping[str, Any], items: list[Item], now: datetime | None = None) -> None:
        """Store a response."""
        content = {"asked": (now or datetime.now(UTC)).isoformat(), "items": items}
        path = self._path(question)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, gzip.compress(json.dumps(content, separators=(",", ":")).encode(), compresslevel=3, mtime=0))

    def _path(self, question: Mapping[str, Any]) -> Path:
        key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
        return self._folder / key[:2] / f"{key[:32]}.json.gz"
