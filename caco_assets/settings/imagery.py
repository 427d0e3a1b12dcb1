"""Settings of the room `imagery`: which scenes and chips are fetched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from caco_assets.core.object_store import ADDRESS
from caco_assets.settings.bands import S2_BANDS
from caco_assets.settings.frozen import Frozen
from caco_assets.settings.imagery_limits import ServerLimits
from caco_assets.settings.imagery_sources import FolderSource, Source, SyntheticSource


class Imagery(Frozen):
    """Scenes and chips to fetch."""

    source: Source = SyntheticSource()
    bands: tuple[str, ...] = Field(default=S2_BANDS, min_length=1)
    chip_size: int = Field(default=264, ge=32, le=1024)
    """Pixels on a side, at `resolution`."""
    resolution: float = Field(default=10.0, gt=0)
    """Metres per pixel."""
    seasons: int = Field(default=5, ge=1)
    """Dates per period; CACo needs at least 3."""
    min_seasons: int = Field(default=3, ge=1)
    """A place with fewer clear dates in either period goes to quarantine."""
    period_months: int = Field(default=12, ge=1, le=1200)
    """Length of each period; up to `gap_years`, for archives with an image in some years only."""
    min_clear: float = Field(default=0.9, gt=0, le=1)
    """Share of a chip's pixels that must be clear (SCL where there is one, a reflectance test where not)."""
    max_scene_cloud: float = Field(default=90.0, ge=0, le=100)
    """Scenes cloudier than this (percent) are not even tried."""
    candidates: int = Field(default=8, ge=1, le=100)
    """Candidate scenes per place and season, least cloudy first; a higher number helps under frequent cloud."""
    workers: int = Field(default=2, ge=1)
    """Threads that decode and encode pixels, and read files on this machine."""
    connections: int = Field(default=32, ge=1, le=256)
    """Concurrent requests to providers whose files are read over HTTP."""
    # left out of dumps at its default: what is made does not depend on it, and dumps enter fingerprints
    limits: ServerLimits = Field(default=ServerLimits(), exclude_if=lambda limits: limits == ServerLimits())
    """Bounds on the pages, items, bytes and time that a server may take."""
    archive: str | None = Field(default=None, pattern=ADDRESS)
    """Where the chips are stored: `s3://bucket/folder`, `gs://…` or `az://container/…`; none: in the workspace."""
    launcher: Literal["inline", "ray"] = "inline"
    """`inline`: one shard after another in this process; `ray`: one task per shard on a Ray cluster, with `workers` cores each."""

    @model_validator(mode="after")
    def _enough_seasons(self) -> Imagery:
        if self.min_seasons > self.seasons:
            raise ValueError(
                f"min_seasons={self.min_seasons} is more than seasons={self.seasons}; lower min_seasons or raise seasons"
            )
        return self

    @model_validator(mode="after")
    def _bands_once(self) -> Imagery:
        if repeated := sorted({band for band in self.bands if self.bands.count(band) > 1}):
            raise ValueError(f"bands: {', '.join(repeated)} is listed twice; list each band once")
        absent = [band for band in self.bands if isinstance(self.source, FolderSource) and band not in self.source.bands]
        if absent:
            raise ValueError(f"bands: {', '.join(absent)} is not among source.bands, which are the bands of the files")
        return self
