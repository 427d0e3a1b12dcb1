"""Reads masks by what their pictures show, and refuses those whose values do not say which class they mean."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.archives import Archives
from caco_assets.downstream.datasets.image_decoding import IGNORE, read_image


def read_codes(archives: Archives, name: str, codes: Mapping[int, int]) -> np.ndarray:
    """A grey mask with its values mapped to ours, uint8 (H, W).

    A palette gives each stored number a colour, and its number 0 may be white: the colours count, not the numbers.

    Args:
        archives: of the data set.
        name: of the mask.
        codes: grey value → class or `IGNORE`.

    Raises:
        UserError: damaged, in colour, of another type, or with a value without a class.
    """
    mask = read_image(archives, name, mask=True)
    known = ", ".join(str(code) for code in sorted(codes))
    if mask.ndim == 3 and (mask == mask[0]).all():  # a palette of greys, or a tool that saves grey masks in colour
        mask = mask[0]
    if mask.ndim != 2 or mask.dtype != np.uint8:
        found = "×".join(str(side) for side in mask.shape)
        colour = "in colour" if mask.ndim == 3 and mask.shape[0] == 3 else f"{found} {mask.dtype}"
        raise UserError(f"{archives.root}: {name} is {colour}; this mask is grey, uint8, with the values {known}: save it so")
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    if unknown := [int(value) for value in present if int(value) not in codes]:
        raise UserError(
            f"{archives.root}: {name} has the value {unknown[0]}, the classes are {known}; use the mask as its authors publish it"
        )
    table = np.full(256, IGNORE, np.uint8)
    table[list(codes)] = list(codes.values())
    return table[mask]


def read_change(archives: Archives, name: str) -> np.ndarray:
    """A change mask as 0 and 1, uint8 (H, W): the authors write 0 and 255, some copies 0 and 1. White is change.

    Raises:
        UserError: as `read_codes`.
    """
    return read_codes(archives, name, {0: 0, 1: 1, 255: 1})
