"""Settings that bound what a foreign server can make this machine do."""

from __future__ import annotations

from pydantic import Field

from caco_assets.settings.frozen import Frozen

MB = 1 << 20


class ServerLimits(Frozen):
    """Bounds on what one search or one response of a server may take; a server that exceeds one ends in one line."""

    pages: int = Field(default=1000, ge=1)
    """Pages of one search of a STAC API."""
    items: int = Field(default=100_000, ge=1)
    """Items of one search of a STAC API."""
    search_mb: float = Field(default=2048.0, gt=0)
    """Megabytes of all pages of one search, unpacked."""
    search_minutes: float = Field(default=120.0, gt=0)
    """Time for one search, with all its retries and waits."""
    response_mb: float = Field(default=256.0, gt=0)
    """Megabytes of one response, unpacked: a page of a search, a range of a file, or a file of a server without ranges."""
    response_minutes: float = Field(default=15.0, gt=0)
    """Time for one response, from its first byte to its last."""

    @property
    def response_bytes(self) -> int:
        """`response_mb` in bytes."""
        return int(self.response_mb * MB)
