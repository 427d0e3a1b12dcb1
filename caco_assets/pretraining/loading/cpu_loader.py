"""Loads batches of views from a pack, rendered by CPU threads while the caller works on the previous batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from caco_assets.pretraining.loading.buffer_pool import Buffers
from caco_assets.pretraining.loading.sampler import Batch, Drawn, Sampler
from caco_assets.pretraining.pack.format import PERIODS
from caco_assets.pretraining.views.cpu_renderer import Renderer

_BATCHES = 4
"""Buffers kept: one in progress, one ready, the caller's, and the one before if the caller still holds it."""


class Loader:
    """Reads the samples of a sampler from its pack and renders the views on the CPU."""

    def __init__(self, sampler: Sampler, *, threads: int = 0) -> None:
        """Load the samples of `sampler` in `threads` threads; 0: all cores available to this process."""
        self.sampler = sampler
        self._threads = threads or len(os.sched_getaffinity(0))
        self._buffers = Buffers(_BATCHES)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self.sampler.steps_per_epoch

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start_step` on; the next one is rendered while the caller works on the last.

        Threads end when the iterator is exhausted, closed or dropped; their exceptions are raised here.
        """
        order = self.sampler.order(epoch)
        with ThreadPoolExecutor(self._threads, "views") as pool, ThreadPoolExecutor(1, "batches") as ahead:
            steps = range(start_step, self.steps_per_epoch)
            try:
                coming = [ahead.submit(self._batch, pool, order, epoch, step) for step in steps[:1]]
                for step in steps:
                    batch = coming.pop().result()
                    if step + 1 in steps:
                        coming.append(ahead.submit(self._batch, pool, order, epoch, step + 1))
                    yield batch
            finally:
                ahead.shutdown(cancel_futures=True)

    def _batch(self, pool: ThreadPoolExecutor, order: np.ndarray, epoch: int, step: int) -> Batch:
        drawn = self.sampler.draw(order, epoch, step)
        rows, side = range(len(drawn.slots)), self.sampler.image_size
        views = self._buffers.take((len(self.sampler.plan.views), len(rows), len(self.sampler.bands), side, side))
        chunks = [rows[i :: self._threads] for i in range(self._threads)]
        futures = [pool.submit(self._render, chunk, drawn, views) for chunk in chunks if chunk]
        for future in futures:
            future.result()
        return Batch(torch.from_numpy(views), torch.from_numpy(drawn.slots))

    def _render(self, rows: range, drawn: Drawn, out: np.ndarray) -> None:
        pack, plan, bands, target = self.sampler.pack, self.sampler.plan, self.sampler.bands, self.sampler.preprocessing
        renderer = Renderer(plan, bands, pack.chip_size, self.sampler.image_size, target.mean, target.std)
        chosen = np.empty((pack.chip_size, pack.chip_size, len(bands)), np.uint8)
        for row in rows:
            for v, view in enumerate(plan.views):
                period, season = divmod(int(drawn.dates[row, view.date]), pack.seasons)
                source = pack.image(int(drawn.slots[row]) // PERIODS, period, season)
                if bands != pack.bands:
                    for c, channel in enumerate(self.sampler.channels):  # copying per band is twice as fast as numpy's indexing
                        chosen[..., c] = source[..., channel]
                    source = chosen
                renderer.render(source, drawn.parameters, v, row, out[v, row])
