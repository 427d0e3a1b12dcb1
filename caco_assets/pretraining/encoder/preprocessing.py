"""Pixel formats of data sets and the preprocessing of encoders, as plain values stored with data and models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from caco_assets.core.errors import UserError, explain_validation
from caco_assets.pretraining.encoder.stretch import KINDS, REFLECTANCE_SCALE, Stretch
from caco_assets.settings import S2_BANDS

RGB = ("B04", "B03", "B02")
# Per channel of a [0, 1] RGB picture (torchvision's and timm's constants). Other bands use the mean over the three channels,
# the same assumption that backbones adapted from three channels to many make.
_IMAGENET = {"B04": (0.485, 0.229), "B03": (0.456, 0.224), "B02": (0.406, 0.225)}
_OTHER_BAND = (0.449, 0.226)
MAX_SIDE = 4096
"""Largest side of an encoder's input, pixels; a vision transformer's memory grows with its square."""
# of a stretch's ends, which are reflectance × at most 10 000
_MAX_LIMIT = 1_000_000


@dataclass(frozen=True)
class PixelFormat:
    """Meaning of a data set's digital numbers (DN): reflectance = DN · `reflectance_per_dn` + `offset`."""

    bands: tuple[str, ...]
    """Band names in the order of the pixels' channel axis."""
    reflectance_per_dn: float
    offset: float = 0.0

    def select(self, wanted: tuple[str, ...]) -> list[int]:
        """Channel indices of the `wanted` bands.

        Raises:
            UserError: a band is missing.
        """
        if missing := [band for band in wanted if band not in self.bands]:
            raise UserError(f"bands: the pixels have {', '.join(self.bands)}, the encoder also needs {', '.join(missing)}")
        return [self.bands.index(band) for band in wanted]

    def to_archive(self, pixels: np.ndarray) -> np.ndarray:
        """Archive values, uint16 reflectance × 10 000 (nearest, clipped to 0 … 65535), of integer DN of any shape.

        Raises:
            UserError: the pixels are not integers.
        """
        if not np.issubdtype(pixels.dtype, np.integer):
            raise UserError(f"pixels: dtype {pixels.dtype} is not an integer type; give the data set's digital numbers as stored")
        if pixels.dtype.itemsize > 2:
            return self._convert(pixels)
        # few distinct values: convert each once, then look up
        info = np.iinfo(pixels.dtype)
        return self._convert(np.arange(info.min, info.max + 1))[pixels.astype(np.int32) - info.min]

    def _convert(self, dn: np.ndarray) -> np.ndarray:
        archive = np.rint(dn * (self.reflectance_per_dn * REFLECTANCE_SCALE) + self.offset * REFLECTANCE_SCALE)
        return np.clip(archive, 0, 65_535).astype(np.uint16)


class _StretchFields(BaseModel):
    """The fields of `Stretch` in a file."""

    name: str
    low: list[int]
    high: list[int]


class _Fields(BaseModel):
    """The fields of `Preprocessing` in a file, which can be anybody's: everything that would fail later is checked here."""

    model_config = ConfigDict(allow_inf_nan=False)

    bands: list[str] = Field(min_length=1)
    stretch: _StretchFields
    # an integer remains one: the identity of an encoder depends on how its numbers are written
    mean: list[int | float]
    std: list[int | float]
    size: int = Field(ge=1, le=MAX_SIDE)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if repeated := sorted({band for band in self.bands if self.bands.count(band) > 1}):
            raise ValueError(f"bands: {', '.join(repeated[:3])} is listed twice")
        for name, values in {"mean": self.mean, "std": self.std, "low": self.stretch.low, "high": self.stretch.high}.items():
            if len(values) != len(self.bands):
                raise ValueError(f"{name}: {len(values)} values for {len(self.bands)} bands")
        if min(self.std) <= 0:
            raise ValueError(f"std: {min(self.std)} is not above 0")
        if self.stretch.name not in KINDS:
            raise ValueError(f"stretch: there is no {self.stretch.name!r}; choose one of {', '.join(KINDS)}")
        if any(not -_MAX_LIMIT <= low < high <= _MAX_LIMIT for low, high in zip(self.stretch.low, self.stretch.high, strict=True)):
            raise ValueError(f"stretch: each low has to be below its high, both within ±{_MAX_LIMIT}")
        return self


ARCHIVE = PixelFormat(S2_BANDS, 1 / REFLECTANCE_SCALE)
"""Archive chips with all bands in their usual order; for other bands use `dataclasses.replace(ARCHIVE, bands=…)`."""
EUROSAT_RGB = PixelFormat(RGB, 0.275 / 255)
"""EuroSAT's RGB jpg: reflectance 0 … 0.275 as 0 … 255 (Helber et al. 2019)."""


@dataclass(frozen=True)
class Preprocessing:
    """Everything between reflectance and a backbone's input: bands, stretch to uint8, /255, mean and deviation, side."""

    bands: tuple[str, ...]
    stretch: Stretch
    mean: tuple[float, ...]
    """Per band, of values in 0 … 1."""
    std: tuple[float, ...]
    size: int
    """Default side of the input, pixels."""

    @classmethod
    def of_pack(cls, bands: tuple[str, ...], stretch: str, size: int) -> Preprocessing:
        """The pack's own stretch and ImageNet's mean and deviation, as used in pretraining.

        Bands other than B04, B03 and B02 take the average over ImageNet's three channels.
        """
        statistics = [_IMAGENET.get(band, _OTHER_BAND) for band in bands]
        return cls(bands, Stretch.named(stretch, bands), tuple(m for m, _ in statistics), tuple(s for _, s in statistics), size)

    @classmethod
    def unit_rgb(cls, size: int = 64) -> Preprocessing:
        """Un-normalised [0, 1] RGB of reflectance 0 … 0.275: EuroSAT's jpg divided by 255 (the `paper` protocol)."""
        return cls(RGB, Stretch.named("eurosat", RGB), (0.0,) * 3, (1.0,) * 3, size)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`, also after a round trip through JSON.

        Raises:
            UserError: a field is missing, of another type, or impossible; names it.
        """
        try:
            found = _Fields.model_validate(fields)
        except ValidationError as error:
            raise UserError(f"preprocessing: {explain_validation(error)}") from error
        stretch = Stretch(found.stretch.name, tuple(found.stretch.low), tuple(found.stretch.high))
        return cls(tuple(found.bands), stretch, tuple(found.mean), tuple(found.std), found.size)

    def stretched(self, pixels: np.ndarray, fmt: PixelFormat) -> np.ndarray:
        """uint8 (B, C, H, W), exactly as a pack stores it, of integer `pixels` (B, bands of `fmt`, H, W).

        Raises:
            UserError: wrong number of axes or bands, a missing band, or pixels that are not integers.
        """
        if pixels.ndim != 4 or pixels.shape[1] != len(fmt.bands):
            raise UserError(f"pixels: shape {pixels.shape} is not (images, {len(fmt.bands)} bands, rows, columns)")
        archive = fmt.to_archive(pixels[:, fmt.select(self.bands)])
        tables = self.stretch.tables()
        return np.stack([tables[c][archive[:, c]] for c in range(len(self.bands))], axis=1)
