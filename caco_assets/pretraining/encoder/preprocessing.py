"""Pixel formats of data sets and the preprocessing of encoders, as plain values stored with data and models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.stretch import REFLECTANCE_SCALE, Stretch
from caco_assets.settings import S2_BANDS

RGB = ("B04", "B03", "B02")
# Per channel of a [0, 1] RGB picture (torchvision's and timm's constants). Other bands use the mean over the three channels,
# the same assumption that backbones adapted from three channels to many make.
_IMAGENET = {"B04": (0.485, 0.229), "B03": (0.456, 0.224), "B02": (0.406, 0.225)}
_OTHER_BAND = (0.449, 0.226)


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
        """The inverse of `to_dict`, also after a round trip through JSON."""
        return cls(
            bands=tuple(fields["bands"]),
            stretch=Stretch.from_dict(fields["stretch"]),
            mean=tuple(fields["mean"]),
            std=tuple(fields["std"]),
            size=int(fields["size"]),
        )

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
