"""Change maps: at each cell of a place, what differs in every pair of dates across the periods, relative to its seasons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.pack.format import PERIODS, Pack

STRIDE = 2
"""Of the encoder's first feature level, pixels: the side of a cell. Deeper levels find the same places but blur their edges."""
PLACE_QUANTILE = 0.995
"""A place's score is this quantile of its map: 20 of 4096 cells, about the smallest change that counts (1 % of a chip)."""
_WINDOW = 3
"""Cells over which distances are averaged: registration and noise differ from date to date."""
# added to the seasonal distance; features have unit variance, so two dates without any change of season differ by about this much
_NOISE = 0.2
# added to a date's own deviation, for dates that are flat (snow, haze): of features, and of pixels in levels of 0 … 255
_FLAT, _FLAT_LEVELS = 0.05, 4.0
_PIXEL_WINDOWS = (5, 3)


@dataclass(frozen=True)
class ChangeMap:
    """The change of one place."""

    cells: NDArray[np.float32]
    """(h, w): least distance over all pairs of dates across the periods, over the mean distance within periods."""
    low: float
    """Lowest place score when any one date is left out; `high` is the highest. NaN where a period has no date to spare."""
    high: float

    @property
    def score(self) -> float:
        """The place's score."""
        return place_score(self.cells)


def place_score(cells: NDArray[np.floating]) -> float:
    """The upper quantile of a map: changes cover a small part of a place."""
    return float(np.quantile(cells, PLACE_QUANTILE))


def place_images(pack: Pack, place: int, channels: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The valid dates of a place, early before late: uint8 (n, C, H, W), and the period of each, (n,)."""
    dates = np.argwhere(pack.valid[place])
    images = [pack.image(place, int(period), int(season))[:, :, channels].transpose(2, 0, 1) for period, season in dates]
    return np.stack(images), dates[:, 0]


def map_change(encoder: Encoder | None, images: NDArray[np.uint8], period: NDArray[np.integer]) -> ChangeMap | None:
    """The change map of one place, from the first feature level of `encoder` on whole, undistorted images.

    Args:
        encoder: in evaluation mode; None: pixels take the place of features, for architectures without feature levels.
        images: uint8 (n, C, H, W) as a pack stores them, with the encoder's bands.
        period: (n,) 0 early, 1 late.

    Returns:
        None if a period has no date, or neither has two: seasons cannot be told from change then.
    """
    if not _enough(period):
        return None
    with torch.inference_mode():
        features = standardised(pixel_cells(images) if encoder is None else first_level(encoder, images))
        distances = smoothed(pair_distances(features), _WINDOW)
        cells = season_robust(distances, period).cpu().numpy()
        scores = [
            place_score(season_robust(distances, period, without=date).cpu().numpy())
            for date in range(len(period))
            if _enough(np.delete(period, date))
        ]
    return ChangeMap(cells, min(scores, default=np.nan), max(scores, default=np.nan))


def first_level(encoder: Encoder, images: NDArray[np.uint8]) -> Tensor:
    """(n, D, H / 2, W / 2): the encoder's features of stride 2.

    Raises:
        UserError: the architecture has no feature levels.
    """
    side = images.shape[-1] // STRIDE * STRIDE
    return encoder.pyramid(encoder.normalise(images[:, :, :side, :side], side), levels=1)[0].float()


def pixel_cells(images: NDArray[np.uint8]) -> Tensor:
    """(n, C, H / 2, W / 2) of 0 … 1: pixels averaged over the cells."""
    return F.avg_pool2d(torch.from_numpy(images).float() / 255, STRIDE)


def standardised(features: Tensor, flat: float = _FLAT) -> Tensor:
    """(n, D, h, w) with zero mean and unit deviation per date and channel: illumination and haze shift whole dates."""
    centred = features - features.mean((2, 3), keepdim=True)
    return centred / (centred.square().mean((2, 3), keepdim=True).sqrt() + flat)


def pair_distances(features: Tensor) -> Tensor:
    """(n, n, h, w): root mean square over the channels of the difference of each two dates, by |a|² + |b|² - 2ab."""
    count, depth, height, width = features.shape
    cells = features.flatten(2).permute(2, 0, 1)  # (h·w, n, D)
    products = cells @ cells.mT
    squares = products.diagonal(dim1=1, dim2=2)
    apart = (squares[:, :, None] + squares[:, None, :] - 2 * products).clamp_min(0) / depth
    return apart.sqrt().permute(1, 2, 0).reshape(count, count, height, width)


def smoothed(maps: Tensor, window: int) -> Tensor:
    """Mean over `window` × `window` cells of (…, h, w); fewer at the edges."""
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    return F.avg_pool2d(flat, window, 1, window // 2, count_include_pad=False).reshape(maps.shape)


def season_robust(distances: Tensor, period: NDArray[np.integer], without: int | None = None) -> Tensor:
    """(h, w): least distance across the periods over mean distance within them.

    A new building differs in every pair of dates, a field only in some; where seasons differ much, a difference says less.

    Args:
        distances: (n, n, h, w) of `pair_distances`.
        period: (n,) 0 early, 1 late.
        without: a date that is left out.
    """
    first, second = np.triu_indices(len(period), 1)
    used = (first != without) & (second != without)
    across = used & (period[first] != period[second])
    within = used & (period[first] == period[second])
    return distances[first[across], second[across]].amin(0) / (distances[first[within], second[within]].mean(0) + _NOISE)


@dataclass(frozen=True)
class PixelBaseline:
    """Change by plain arithmetic on pixels standardised per date and band, to judge `map_change` by."""

    pixels: NDArray[np.float32]
    """(H, W)."""
    score: float
    """The place's score."""


def pixel_baselines(images: NDArray[np.uint8], period: NDArray[np.integer]) -> dict[str, PixelBaseline]:
    """Two baselines for the dates of one place; arguments as in `map_change`.

    Returns:
        `pixel_mean`: mean difference across the periods over that within them; the score is the ratio over the whole place.
        `pixel_min`: least difference across the periods, smoothed; the score is the same quantile as that of a change map.
    """
    pixels = standardised(torch.from_numpy(images).float(), _FLAT_LEVELS)
    first, second = np.triu_indices(len(period), 1)
    across = period[first] != period[second]
    pairs = (pixels[first] - pixels[second]).abs().mean(1)
    wide, narrow = _PIXEL_WINDOWS
    long, short = pairs[across].mean(0), pairs[~across].mean(0)
    mean = smoothed(long, wide) / (smoothed(short, wide) + _NOISE)
    least = smoothed(smoothed(pairs[across], wide).amin(0), narrow).numpy()
    ratio = float(long.mean() / short.mean().clamp_min(_NOISE / 10))
    return {"pixel_mean": PixelBaseline(mean.numpy(), ratio), "pixel_min": PixelBaseline(least, place_score(least))}


def _enough(period: NDArray[np.integer]) -> bool:
    counts = np.bincount(period, minlength=PERIODS)
    return bool(counts.min() >= 1 and counts.max() >= 2)
