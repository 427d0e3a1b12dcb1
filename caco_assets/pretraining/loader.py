"""Batches of views from a pack: which places, which dates, which distortions, as a pure function of (seed, epoch, step)."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caco_assets.errors import UserError
from caco_assets.pretraining.augment import Parameters, Renderer, draw
from caco_assets.pretraining.pack import PERIODS, Pack
from caco_assets.pretraining.pixels import Preprocessing
from caco_assets.pretraining.views import ViewPlan


@dataclass(frozen=True)
class Batch:
    """One step's samples; V views, B samples."""

    views: Tensor
    """float32 (V, B, C, S, S), normalised; views[0] is the query."""
    slots: Tensor
    """int64 (B,): 2 · place + period (period 0 early, 1 late; samples of a whole place have 0). In a paired plan rows 2i and 2i + 1
    are the early and the late period of one place."""


def reference_pair_order(n: int, seed: int) -> list[int]:
    """Order of `n` samples (n/2 places, two periods each) as the published sampler emits it.

    Python's `random.Random(seed)` shuffles the places; each gives (2i, 2i + 1), early then late.
    """
    return [2 * place + period for place in _shuffled(n // PERIODS, seed) for period in range(PERIODS)]


def _shuffled(n: int, seed: int) -> list[int]:
    places = list(range(n))
    random.Random(seed).shuffle(places)
    return places


class Loader:
    """Reads a pack and makes the views of a plan.

    One epoch of a paired plan shows both periods of every place once, of another plan every place once; the last, incomplete
    batch is dropped. What a step holds depends on (seed, epoch, step) only: not on the number of threads or of processes.
    """

    def __init__(
        self,
        pack: Path,
        plan: ViewPlan,
        *,
        batch_size: int,
        image_size: int,
        crop_scale: tuple[float, float],
        seed: int,
        threads: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """Open the pack.

        Args:
            pack: its folder.
            plan: which dates become which views.
            batch_size: samples per step, over all processes.
            image_size: side S of the views, pixels.
            crop_scale: smallest and largest share of the image's area in a crop.
            seed: of everything random here.
            threads: that render; 0: all cores this process may use.
            part: (rank, processes): yield the rank-th of so many equal slices of each batch.

        Raises:
            UserError: the pack is missing, damaged or too small, or the batch cannot be cut as asked.
        """
        self._pack, self._plan = Pack.open(pack), plan
        self._batch_size, self._image_size, self._crop_scale, self._seed = batch_size, image_size, crop_scale, seed
        self._threads = threads or len(os.sched_getaffinity(0))
        rank, processes = part
        unit = (PERIODS if plan.paired else 1) * processes
        if batch_size % unit:
            raise UserError(f"batch_size={batch_size}: must be a multiple of {unit} (pairs of periods × processes)")
        self._rows = slice(rank * batch_size // processes, (rank + 1) * batch_size // processes)
        if self.steps_per_epoch == 0:
            samples = self._pack.count * self._samples_per_place
            raise UserError(f"batch_size={batch_size}: the pack {pack} holds only {samples} samples; lower it, or add places")
        fewest = int((self._pack.valid.sum(axis=2) if plan.scope == "period" else self._pack.valid.sum(axis=(1, 2))).min())
        if fewest < (1 if plan.replace else plan.draw):
            raise UserError(
                f"min_seasons: a place of the pack {pack} has only {fewest} dates to draw from, this objective draws {plan.draw}; "
                f"raise imagery.min_seasons to {plan.draw} and build the pack again"
            )

    @property
    def places(self) -> int:
        """Number of places in the pack; slots are below twice that."""
        return self._pack.count

    @property
    def lonlat(self) -> np.ndarray:
        """float64 (places, 2): where they are, degrees."""
        return self._pack.lonlat

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of the views, in order."""
        return self._pack.bands

    @property
    def preprocessing(self) -> Preprocessing:
        """What an encoder trained on these views must do to its pixels."""
        return Preprocessing.of_pack(self._pack.bands, self._pack.stretch, self._image_size)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self._pack.count * self._samples_per_place // self._batch_size

    @property
    def _samples_per_place(self) -> int:
        return PERIODS if self._plan.paired else 1

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start_step` on; the next one is made while the caller works on the last.

        Threads end when the iterator is exhausted, closed or dropped; an exception in one of them is raised here.
        """
        order = self._order(epoch)
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

    def _order(self, epoch: int) -> np.ndarray:
        """int64: the slots of an epoch in order; the published shuffle, seeded by (seed, epoch)."""
        seed = int(np.random.SeedSequence((self._seed, epoch)).generate_state(1)[0])
        if self._plan.paired:
            return np.array(reference_pair_order(PERIODS * self._pack.count, seed), np.int64)
        return PERIODS * np.array(_shuffled(self._pack.count, seed), np.int64)

    def _batch(self, pool: ThreadPoolExecutor, order: np.ndarray, epoch: int, step: int) -> Batch:
        slots = order[step * self._batch_size : (step + 1) * self._batch_size]
        generator = np.random.default_rng((self._seed, epoch, step))
        # drawn for the whole batch, so that the slices of several processes are those of one
        dates = draw_dates(generator, self._plan, self._pack.valid, slots)
        parameters = draw(generator, self._plan, self._batch_size, self._pack.chip_size, self._crop_scale)
        rows = range(self._batch_size)[self._rows]
        side = self._image_size
        # numpy's memory, not torch's: it asks for huge pages, and touching new memory costs a quarter as much
        views = np.empty((len(self._plan.views), len(rows), len(self._pack.bands), side, side), np.float32)
        chunks = [rows[i :: self._threads] for i in range(self._threads)]
        futures = [pool.submit(self._render, chunk, slots, dates, parameters, views) for chunk in chunks if chunk]
        for future in futures:
            future.result()
        return Batch(torch.from_numpy(views), torch.from_numpy(slots[self._rows]))

    def _render(self, rows: range, slots: np.ndarray, dates: np.ndarray, parameters: Parameters, out: np.ndarray) -> None:
        pack, target = self._pack, self.preprocessing
        renderer = Renderer(self._plan, pack.bands, pack.chip_size, self._image_size, target.mean, target.std)
        for row in rows:
            for v, view in enumerate(self._plan.views):
                period, season = divmod(int(dates[row, view.date]), pack.seasons)
                source = pack.image(int(slots[row]) // PERIODS, period, season)
                renderer.render(source, parameters, v, row, out[v, row - self._rows.start])


def draw_dates(generator: np.random.Generator, plan: ViewPlan, valid: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """int64 (B, plan.draw): the dates of each sample as period · seasons + season, drawn uniformly among the valid ones.

    Args:
        generator: the only source of randomness.
        plan: how many, with or without replacement, within the slot's period or the whole place.
        valid: bool (places, 2, seasons).
        slots: int64 (B,): 2 · place + period.
    """
    place, period = np.divmod(slots, PERIODS)
    allowed = valid[place].copy()  # (B, 2, seasons)
    if plan.scope == "period":
        allowed[np.arange(len(slots)), 1 - period] = False
    allowed = allowed.reshape(len(slots), -1)  # (B, 2·seasons)
    # a uniformly random order of the valid dates, the others behind them
    order = np.argsort(np.where(allowed, generator.random(allowed.shape), 2.0), axis=1)
    if not plan.replace:
        return order[:, : plan.draw]
    pick = np.floor(generator.random((len(slots), plan.draw)) * allowed.sum(axis=1, keepdims=True)).astype(np.int64)
    return np.take_along_axis(order, pick, axis=1)
