"""Checks the band order of a data set on a few images before anything is computed.

Plants reflect near infrared and little red, water absorbs wavelengths longer than blue, and the cirrus band is almost dark. Swapped
bands break these relations. Swaps of similar bands (such as B06 and B07), and swaps in only a few files, are not detected.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError

PLANTS = (("B08", "B04"), ("B8A", "B05"), ("B06", "B05"), ("B11", "B12"))
"""Brighter and darker band over forest, crops and pasture, at either level."""
FEWEST = 3
"""Minimum number of images for a conclusion."""
_ITEM = re.compile(r'<Item name="DESCRIPTION" sample="(\d+)"[^>]*>([^<]*)</Item>')
_BAND = re.compile(r"B0?(\d{1,2})(A?)", re.IGNORECASE)


def check_order(
    root: Path, images: Sequence[np.ndarray], bands: Sequence[str], brighter: Sequence[tuple[str, str]], ground: str
) -> None:
    """Refuse images where a band that must be brighter is darker, in most images and in their mean.

    Args:
        root: of the data, for the message.
        images: each (C, H, W); fewer than `FEWEST` are not checked.
        bands: their C bands.
        brighter: pairs of a band and one that is darker over this ground.
        ground: what the images show, for the message.

    Raises:
        UserError: some pair is the wrong way round.
    """
    if len(images) < FEWEST:
        return
    means = np.array([image.reshape(len(bands), -1).mean(axis=1) for image in images])  # (N, C)
    for bright, dark in brighter:
        one, other = means[:, bands.index(bright)], means[:, bands.index(dark)]
        wrong = int((one < other).sum())
        if 2 * wrong > len(images) and one.mean() < other.mean():
            raise UserError(
                f"{root}: {bright} is darker than {dark} ({one.mean():.0f} and {other.mean():.0f} on average) in {wrong} of "
                f"{len(images)} images of {ground}: bands are swapped; their order is {', '.join(bands)}, use the authors' files"
            )


def check_descriptions(where: str, metadata: str, bands: Sequence[str]) -> None:
    """Refuse a file whose own band names are in another order; names that are not Sentinel-2 bands are ignored.

    Args:
        where: the file, for the message.
        metadata: GDAL's XML in tag 42112 of a TIFF.
        bands: the right order.

    Raises:
        UserError: the order differs.
    """
    found = {int(number): _name(text) for number, text in _ITEM.findall(metadata)}
    said = [found.get(number, "") for number in range(len(bands))]
    if all(said) and said != list(bands):
        raise UserError(f"{where} names its bands {', '.join(said)}; this data set has {', '.join(bands)}: use the authors' file")


def spread(names: Sequence[str], count: int) -> list[str]:
    """At most `count` of the names, evenly spread."""
    if len(names) <= count:
        return list(names)
    return [names[round(i * (len(names) - 1) / (count - 1))] for i in range(count)]


def _name(text: str) -> str:
    match = _BAND.match(text.strip())
    return f"B{int(match[1]):02d}" if match and not match[2] else f"B{match[1]}A" if match else ""
