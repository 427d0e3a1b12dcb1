"""Images of a pack for a GPU: all in its memory, or streamed from pinned memory for the next steps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from caco_assets.pretraining.loading.sampler import Drawn
from caco_assets.pretraining.pack.format import PERIODS, Pack

_PIECE = 64 << 20
"""Bytes of the pack copied to the device at a time."""


class Images(Protocol):
    """Source of the pixels of a batch."""

    @property
    def resident(self) -> bool:
        """Whether the whole pack is in the device's memory."""
        ...

    def readers(self) -> AbstractContextManager[None]:
        """Context in which reader threads run."""
        ...

    def prepare(self, drawn: Drawn) -> tuple[Tensor, np.ndarray]:
        """On the host, in a thread: images uint8 (N, H, W, C), and int64 (B, draw), the image index of each drawn date."""
        ...

    def on_device(self, prepared: tuple[Tensor, np.ndarray]) -> tuple[Tensor, np.ndarray]:
        """The same with the images on the device; the host does not wait."""
        ...


def open_images(pack: Pack, channels: list[int], device: torch.device, share: float, threads: int) -> Images:
    """All of the pack in the device's memory if that takes at most `share` of its free memory, else streamed.

    Args:
        pack: the images.
        channels: band indices to load, in order.
        device: target device.
        share: 0 … 1; on devices other than GPUs 0 means streamed, any other value in memory.
        threads: readers of the pack; 0: all cores available to this process.
    """
    size = pack.count * PERIODS * pack.seasons * pack.chip_size**2 * len(channels)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")
    threads = threads or len(os.sched_getaffinity(0))
    if share > 0 and size <= share * free:
        return Resident(pack, channels, device, threads)
    return Streamed(pack, channels, device, threads)


class Resident:
    """The whole pack in the device's memory."""

    resident = True

    def __init__(self, pack: Pack, channels: list[int], device: torch.device, threads: int) -> None:
        """Copy the chosen bands of all places, read by `threads` threads."""
        self._seasons = pack.seasons
        image = (pack.chip_size, pack.chip_size, len(channels))
        self._images = torch.empty((pack.count, PERIODS * pack.seasons, *image), dtype=torch.uint8, device=device)
        step = max(1, _PIECE // (PERIODS * pack.seasons * int(np.prod(image))))
        with ThreadPoolExecutor(threads, "views") as pool:
            for start in range(0, pack.count, step):
                places = range(start, min(start + step, pack.count))
                piece = np.empty((len(places), PERIODS, pack.seasons, *image), np.uint8)

                def read(place: int, target: np.ndarray) -> None:
                    for date in np.ndindex(target.shape[:2]):
                        _take(pack.image(place, *date), channels, target[date])

                list(pool.map(read, places, piece))
                self._images[places.start : places.stop].copy_(torch.from_numpy(piece).flatten(1, 2))

    @contextmanager
    def readers(self) -> Iterator[None]:
        """No threads."""
        yield

    def prepare(self, drawn: Drawn) -> tuple[Tensor, np.ndarray]:
        """See `Images`."""
        return self._images.flatten(0, 1), (drawn.slots // PERIODS * PERIODS * self._seasons)[:, None] + drawn.dates

    def on_device(self, prepared: tuple[Tensor, np.ndarray]) -> tuple[Tensor, np.ndarray]:
        """See `Images`."""
        return prepared


class Streamed:
    """Moves only the drawn dates: a few threads copy mapped files to pinned memory, then the current stream to the device."""

    resident = False

    def __init__(self, pack: Pack, channels: list[int], device: torch.device, threads: int) -> None:
        """Does not read anything yet."""
        self._pack, self._channels, self._device, self._threads = pack, channels, device, threads
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def readers(self) -> Iterator[None]:
        """Threads named `views`."""
        with ThreadPoolExecutor(self._threads, "views") as self._pool:
            yield

    def prepare(self, drawn: Drawn) -> tuple[Tensor, np.ndarray]:
        """See `Images`."""
        assert self._pool is not None  # noqa: S101 - only called inside `readers`
        side = self._pack.chip_size
        shape = (drawn.dates.size, side, side, len(self._channels))
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        place = np.repeat(drawn.slots // PERIODS, drawn.dates.shape[1])
        target, dates = pixels.numpy(), drawn.dates.ravel()

        def read(rows: range) -> None:
            for row in rows:
                period, season = divmod(int(dates[row]), self._pack.seasons)
                _take(self._pack.image(int(place[row]), period, season), self._channels, target[row])

        list(self._pool.map(read, [range(len(dates))[i :: self._threads] for i in range(self._threads)]))
        return pixels, np.arange(len(dates)).reshape(drawn.dates.shape)

    def on_device(self, prepared: tuple[Tensor, np.ndarray]) -> tuple[Tensor, np.ndarray]:
        """See `Images`."""
        pixels, index = prepared
        return pixels.to(self._device, non_blocking=True), index


def _take(source: np.ndarray, channels: list[int], target: np.ndarray) -> None:
    """Copy the chosen bands (last axis) of `source` to `target`."""
    if channels == list(range(source.shape[-1])):
        target[...] = source
        return
    for c, channel in enumerate(channels):  # copying per band is twice as fast as numpy's indexing
        target[..., c] = source[..., channel]
