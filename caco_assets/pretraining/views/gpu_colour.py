"""Colour operations on batches of 8-bit pictures in torch, on any device, with the same results as the compiled kernel.

Levels 0 … 255 are stored as float32, which adds and multiplies them as Pillow does; every operation returns whole levels. Planes
are (n, bands, H, W); a factor is (n, 1, 1, 1), one for each picture. No operation waits for the device.

Sources: see `cpu_kernel.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def brightness(planes: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return (planes * factor).clamp_(0, 255).floor_()


def contrast(planes: Tensor, factor: Tensor, colours: bool) -> Tensor:
    """Blend with the picture's mean level: of the luma if the bands are colours, else of all bands."""
    grays = luma(planes) if colours else planes
    count = grays[0].numel()
    # float64: the sum of a whole picture's levels exceeds the precision of float32
    mean = (grays.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.float64) / count + 0.5).floor_().float()
    return _blend(planes, mean, factor)


def saturation(planes: Tensor, factor: Tensor) -> Tensor:
    """Blend each pixel with its own luma; three colours only."""
    return _blend(planes, luma(planes), factor)


def grayscale(planes: Tensor) -> Tensor:
    """Replace every colour with the luma."""
    return luma(planes).expand_as(planes)


def luma(planes: Tensor) -> Tensor:
    """(n, 1, H, W): ITU-R 601-2 in Pillow's 16-bit fixed point; every product and sum here is exact in float32."""
    red, green, blue = planes.split(1, dim=1)
    total = red * (19_595 / 65_536)
    return total.add_(green, alpha=38_470 / 65_536).add_(blue, alpha=7_471 / 65_536).add_(0.5).floor_()


def hue(planes: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue by `shift` (whole 255ths of a circle) through HSV of 8 bits each, as in Pillow's mode HSV."""
    red, green, blue = planes.split(1, dim=1)
    top, bottom = planes.amax(dim=1, keepdim=True), planes.amin(dim=1, keepdim=True)
    spread = top - bottom
    part = (2 * top + bottom - red - green - blue) / spread.clamp(min=1)
    of_red = torch.where(green >= blue, 1 - part, part - 1)
    of_green = torch.where(red < blue, 3 - part, 1 + part)
    of_blue = torch.where(red < green, 3 + part, 5 - part)
    sixths = torch.where(red == top, of_red, torch.where(green == top, of_green, of_blue))
    # Pillow's precisions, float32 and float64: where the hue is close to a whole level, the last bit decides the result
    turns = sixths.double().div_(6.0).add_(1.0)
    turns = torch.where(turns >= 1.0, turns - 1.0, turns).float()
    level = turns.double().mul_(255.0).trunc_().float()
    vividness = (spread / top.clamp(min=1)).double().mul_(255.0).trunc_().float()
    k = (level + shift).remainder_(256).mul_(6 / 255)
    chroma = top * vividness * (1 / 255)
    return torch.cat([_from_hsv(top, chroma, k + offset) for offset in (5, 3, 1)], dim=1)


def _blend(planes: Tensor, towards: Tensor, factor: Tensor) -> Tensor:
    # in this order, as in Pillow: a sum just below a whole level is truncated to the level below
    return (planes - towards).mul_(factor).add_(towards).clamp_(0, 255).floor_()


def _from_hsv(value: Tensor, chroma: Tensor, k: Tensor) -> Tensor:
    k = torch.where(k >= 6, k - 6, k)
    share = torch.minimum(k, 4 - k).clamp_(0, 1)
    return (value - chroma * share).add_(0.5).trunc_()
