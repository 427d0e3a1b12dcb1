"""What a raster says of itself: the names of its bands, the meaning of its numbers, and which pixels are left out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader

from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.scenes.radiometry import Radiometry, finite_nodata

_REFLECTANCE_UNITS = ("", "1", "dn", "none", "unitless", "dimensionless", "reflectance", "counts")


@dataclass(frozen=True)
class Said:
    """What a user says of the numbers of some files; it takes precedence over what the files say of themselves."""

    scale: float | None = None
    """Reflectance per digital number; None: what the file says."""
    offset: float | None = None
    """Reflectance at digital number 0; None: what the file says."""
    nodata: float | None = None
    """Digital number that means no data; None: there is none."""
    nodata_of_file: bool = True
    """The file's value, in place of `nodata`."""


@dataclass(frozen=True)
class FileFacts:
    """What a file says of itself."""

    names: tuple[str | None, ...]
    """Of its bands, as written in the file; None: it says none."""
    scales: tuple[float | None, ...]
    """Per band, with `offsets`: reflectance = DN · scale + offset; both None: it says neither, or 1 and 0 (the same to GDAL)."""
    offsets: tuple[float | None, ...]
    nodata: float | None
    """May be NaN; None: it says none."""
    units: tuple[str, ...]
    """Per band; empty: it says none."""
    masked: bool
    """A mask leaves pixels out."""
    dtype: str
    """Of its numbers."""

    def of_band(self, number: int) -> FileFacts:
        """The same of one band, by its number from 1."""
        one = slice(number - 1, number)
        return replace(self, names=self.names[one], scales=self.scales[one], offsets=self.offsets[one], units=self.units[one])

    def radiometry(self, said: Said, default: Radiometry) -> tuple[Radiometry, ...]:
        """The meaning of each band's numbers: as the user says, else as the file says, else `default`."""
        nodata = said.nodata if not said.nodata_of_file else default.nodata if self.nodata is None else self.nodata
        return tuple(
            Radiometry(_first(said.scale, scale, default.scale), _first(said.offset, offset, default.offset), finite_nodata(nodata))
            for scale, offset in zip(self.scales, self.offsets, strict=True)
        )

    def contradictions(self, said: Said) -> Iterator[str]:
        """Where the user says otherwise than the file; a line each, to follow the file's name."""
        for what, own, theirs in (("scale", self.scales, said.scale), ("offset", self.offsets, said.offset)):
            others = sorted(
                {value for value in own if value is not None and theirs is not None and not math.isclose(value, theirs)}
            )
            if others:
                yield f"says {what} {', '.join(f'{value:g}' for value in others)}; the given {what} {theirs:g} is used"
        if not said.nodata_of_file and self.nodata is not None and not _same(self.nodata, said.nodata):
            used = "none" if said.nodata is None else f"{said.nodata:g}"
            yield f"says that {self.nodata:g} means no data; the given nodata {used} is used"

    def doubts(self) -> Iterator[str]:
        """What else speaks against numbers of reflectance; a line each, to follow the file's name."""
        strange = sorted({unit for unit in self.units if unit.strip().lower() not in _REFLECTANCE_UNITS})
        if strange:
            yield f"gives its numbers the unit {', '.join(strange)}, which is not reflectance; check scale and offset"


def facts_of(raster: DatasetReader) -> FileFacts:
    """What an open raster says of itself.

    Raises:
        UnreadableError: its bands differ in their no-data value.
    """
    if any(not _same(value, raster.nodata) for value in raster.nodatavals):
        raise UnreadableError("unreadable", "gives its bands different nodata values")
    told = [
        (scale, offset) if (scale, offset) != (1, 0) and scale and math.isfinite(scale) and math.isfinite(offset) else (None, None)
        for scale, offset in zip(raster.scales, raster.offsets, strict=True)
    ]
    return FileFacts(
        names=tuple(name or None for name in raster.descriptions),
        scales=tuple(scale for scale, _ in told),
        offsets=tuple(offset for _, offset in told),
        nodata=raster.nodata,
        units=tuple(unit or "" for unit in raster.units),
        masked=has_mask(raster),
        dtype=raster.dtypes[0],
    )


def has_mask(raster: DatasetReader) -> bool:
    """Whether a mask says which pixels of a raster are left out.

    An alpha band is none: GDAL marks the fourth band of many 8-bit files as alpha that hold, say, the near infrared there.
    """
    flags = raster.mask_flag_enums[0]
    return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _same(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isnan(one) and math.isnan(other))
