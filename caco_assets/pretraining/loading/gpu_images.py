"""The images of a pack as a GPU finds them: all in its memory, or those of the next steps sent after it from pinned memory."""

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
"""Bytes of the pack that move into the device's memory at a time."""


class Images(Protocol):
    """Where the pixels of a batch come from."""

    @property
    def resident(self) -> bool:
        """Whether all of the pack lies in the device's memory."""
        ...

    def readers(self) -> AbstractContextManager[None]:
        """Threads that read, while they are needed."""
        ...

    def prepare(self, drawn: Drawn) -> tuple[Tensor, np.ndarray]:
        """On the host, in a thread: images uint8 (N, H, W, C), and int64 (B, draw), which of them each drawn date is."""
        ...

    def on_device(self, prepared: tuple[Tensor, np.ndarray]) -> tuple[Tensor, np.ndarray]:
        """The same with the images on the device; the host does not wait."""
        ...


def open_images(pack: Pack, channels: list[int], device: torch.device, share: float, threads: int) -> Images:
    """All of the pack in the device's memory if that takes at most `share` of what is free there, else streamed.

    Args:
        pack: the images.
        channels: bands of them that are wanted, in order.
        device: where to.
        share: 0 … 1; on a device other than a GPU 0 means streamed, and all else in memory.
        threads: that read a streamed pack; 0: all cores this process may use.
    """
    size = pack.count * PERIODS * pack.seasons * pack.chip_size**2 * len(channels)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")
    if share > 0 and size <= share * free:
        return Resident(pack, channels, device)
    return Streamed(pack, channels, device, threads or len(os.sched_getaffinity(0)))


class Resident:
    """The whole pack in the device's memory."""

    resident = True

    def __init__(self, pack: Pack, channels: list[int], device: torch.device) -> None:
        """Copy the wanted bands of all places."""
        self._seasons = pack.seasons
        image = (pack.chip_size, pack.chip_size, len(channels))
        self._images = torch.empty((pack.count, PERIODS * pack.seasons, *image), dtype=torch.uint8, device=device)
        step = max(1, _PIECE // (PERIODS * pack.seasons * int(np.prod(image))))
        for start in range(0, pack.count, step):
            places = range(start, min(start + step, pack.count))
            piece = np.empty((len(places), PERIODS, pack.seasons, *image), np.uint8)
            for i, place in enumerate(places):
                _take(pack.images[pack.file_index[place]][pack.row[place]], channels, piece[i])
            self._images[places.start : places.stop].copy_(torch.from_numpy(piece).flatten(1, 2))

    @contextmanager
    def readers(self) -> Iterator[None]:
        """None are needed."""
        yield

    def prepare(self, drawn: Drawn) -> tuple[Tensor, np.ndarray]:
        """See `Images`."""
        return self._images.flatten(0, 1), (drawn.slots // PERIODS * PERIODS * self._seasons)[:, None] + drawn.dates

    def on_device(self, prepared: tuple[Tensor, np.ndarray]) -> tuple[Tensor, np.ndarray]:
        """See `Images`."""
        return prepared


class Streamed:
    """Only the drawn dates move: from the mapped files into pinned memory by a few threads, from there on the current stream."""

    resident = False

    def __init__(self, pack: Pack, channels: list[int], device: torch.device, threads: int) -> None:
        """Nothing is read yet."""
        self._pack, self._channels, self._device, self._threads = pack, channels, device, threads
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def readers(self) -> Iterator[None]:
        """Threads named `views`."""
        with ThreadPoolExecutor(self._threads, "views") as self._pool:
            yield

    def prepare(self, drawn: Drawn) -> tuple[Tensor, np.ndarray]:
        """See `Images`."""
        assert self._pool is not None  # noqa: S101 - inside `readers`
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
    """The chosen bands, the last axis, of `source` into `target`."""
    if channels == list(range(source.shape[-1])):
        target[...] = source
        return
    for c, channel in enumerate(channels):  # a copy per band is twice as fast as numpy's own selection
        target[..., c] = source[..., channel]
