"""Crop, flip, blur and resize as matrices: one for the rows and one for the columns of each picture, on any device.

All four are linear and separable, so the whole transform from the pack's pixels to the view's is `rows @ picture @ columnsᵀ`.
Levels are not rounded in between, while Pillow rounds after each of the blur's six passes: the results differ by a few levels
next to hard edges.

Sources: Pillow's documented filters; the blur is the extended box blur of Gwosdek et al. 2011, in three passes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PASSES = 3
"""Box filters in one blur."""
# stands for "outside the crop": beyond the reach of any filter
_FAR = 1e9


def resize_matrix(start: Tensor, length: Tensor, flip: Tensor, inputs: int, outputs: int, dtype: torch.dtype) -> Tensor:
    """(n, `outputs`, `inputs`): Pillow's bilinear filter with antialiasing along one direction.

    Args:
        start: float32 (n,): first input of each crop, counted on the flipped line if `flip` is set.
        length: float32 (n,): inputs in each crop.
        flip: bool (n,): whether the line is reversed first.
        inputs: length of the line.
        outputs: side of the view.
        dtype: of the result.
    """
    line = torch.arange(inputs, device=start.device, dtype=torch.float32)
    place = torch.where(flip[:, None], inputs - 1 - line, line) - start[:, None]  # (n, inputs)
    inside = (place >= 0) & (place < length[:, None])
    scale = length[:, None] / outputs
    support = scale.clamp(min=1)
    # both in units of the filter's half width
    place = torch.where(inside, (place + 0.5) / support, _FAR)
    centre = (torch.arange(outputs, device=start.device, dtype=torch.float32) + 0.5) * scale / support  # (n, outputs)
    weights = (place[:, None, :] - centre[:, :, None]).abs_().neg_().add_(1).clamp_(min=0)  # (n, outputs, inputs)
    return (weights / weights.sum(dim=2, keepdim=True)).to(dtype)


def blur_weights(sigma: np.ndarray) -> np.ndarray:
    """float32 (…, 3): weights of a sample, of its two neighbours and of the two next in a box filter; one pass of three.

    Args:
        sigma: pixels, below 2.4; where it is 0 the weights are 1, 0, 0.
    """
    variance = np.square(sigma) / PASSES
    whole = np.floor((np.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - np.square(whole + 1)))
    inner = 1 / (2 * (whole + part) + 1)
    outer = (1 - (2 * whole + 1) * inner) / 2
    return np.stack([inner, np.where(whole == 1, inner, outer), np.where(whole == 1, outer, 0)], axis=-1).astype(np.float32)


def box_basis(side: int, device: torch.device) -> Tensor:
    """float32 (3, side · side): contribution of each of `blur_weights` to the matrix of one pass; edges repeat."""
    basis = torch.zeros(3, side, side)
    line = torch.arange(side)
    for reach in range(3):
        for offset in {-reach, reach}:
            basis[reach].index_put_((line, (line + offset).clamp(0, side - 1)), torch.ones(side), accumulate=True)
    return basis.reshape(3, -1).to(device)


def blur_matrix(weights: Tensor, basis: Tensor) -> Tensor:
    """float32 (n, side, side): the three passes of a blur along one direction, of `weights` (n, 3) and `box_basis`."""
    side = round(basis.shape[1] ** 0.5)
    once = (weights[:, :, None] * basis).sum(dim=1).view(-1, side, side)
    return torch.bmm(torch.bmm(once, once), once)


def apply(rows: Tensor, columns: Tensor, planes: Tensor) -> list[Tensor]:
    """`rows` @ plane @ `columns`ᵀ of every band: (n, S, H), (n, S, W) and planes (n, bands, H, W) give bands of (n, S, S)."""
    n, bands, height, width = planes.shape
    across = torch.bmm(planes.reshape(n, bands * height, width), columns.mT).view(n, bands, height, -1)
    # band by band: a product over all bands would first copy them into another order
    return [torch.bmm(rows, across[:, band]) for band in range(bands)]
