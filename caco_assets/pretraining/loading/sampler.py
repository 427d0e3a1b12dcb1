"""Samples the places, dates and augmentations of each training step, as a pure function of (seed, epoch, step)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from torch import Tensor

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.preprocessing import Preprocessing
from caco_assets.pretraining.pack.format import PERIODS, Pack
from caco_assets.pretraining.views.aligned_seasons import align, check_common_seasons
from caco_assets.pretraining.views.augmentation import Parameters, draw
from caco_assets.pretraining.views.view_plans import ViewPlan


@dataclass(frozen=True)
class Batch:
    """One step's samples; V views, B samples."""

    views: Tensor
    """float32 (V, B, C, S, S), normalised; views[0] is the query."""
    slots: Tensor
    """int64 (B,): 2 · place + period (period 0 early, 1 late; samples of a whole place have 0). In a paired plan rows 2i and 2i + 1
    are the early and the late period of one place."""


@dataclass(frozen=True)
class Drawn:
    """The random choices of one step; B samples of this process."""

    slots: np.ndarray
    """int64 (B,): 2 · place + period."""
    dates: np.ndarray
    """int64 (B, plan.draw): period · seasons + season."""
    parameters: Parameters


class Sampler:
    """Draws the steps of an epoch from an open pack.

    One epoch of a paired plan shows both periods of every place once; other plans show every place once. The last, incomplete
    batch is dropped. The content of a step depends on (seed, epoch, step) only, not on the number of threads or processes.
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
        bands: Sequence[str] | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """Open the pack.

        Args:
            pack: folder of the pack.
            plan: which dates become which views.
            batch_size: samples per step, over all processes.
            image_size: side S of the views, pixels.
            crop_scale: smallest and largest share of the image's area in a crop.
            seed: of all random choices.
            bands: of the views, in this order; empty: those of the pack.
            part: (rank, processes): use slice `rank` of the equal slices of each batch.

        Raises:
            UserError: the pack is missing, damaged or too small, lacks a band, or the batch cannot be divided as requested.
        """
        self.pack, self.plan, self.image_size = Pack.open(pack), plan, image_size
        self.bands = tuple(bands or self.pack.bands)
        """Bands of the views, in order."""
        self.channels = self.pack.channels(self.bands)
        """Their indices among the bands of the pack."""
        self._batch_size, self._crop_scale, self._seed = batch_size, crop_scale, seed
        rank, processes = part
        unit = (PERIODS if plan.paired else 1) * processes
        if batch_size % unit:
            raise UserError(f"batch_size={batch_size}: must be a multiple of {unit} (pairs of periods × processes)")
        self._rows = slice(rank * batch_size // processes, (rank + 1) * batch_size // processes)
        if self.steps_per_epoch == 0:
            samples = self.pack.count * self._samples_per_place
            raise UserError(f"batch_size={batch_size}: the pack {pack} holds only {samples} samples; lower it, or add places")
        fewest = int((self.pack.valid.sum(axis=2) if plan.scope == "period" else self.pack.valid.sum(axis=(1, 2))).min())
        if fewest < (1 if plan.replace else plan.draw):
            raise UserError(
                f"min_seasons: a place of the pack {pack} has only {fewest} dates to draw from, this objective draws {plan.draw}; "
                f"raise imagery.min_seasons to {plan.draw} and build the pack again"
            )
        if plan.aligned:
            check_common_seasons(pack, self.pack.valid)

    @property
    def places(self) -> int:
        """Number of places in the pack; slots are below twice that."""
        return self.pack.count

    @property
    def lonlat(self) -> np.ndarray:
        """float64 (places, 2): coordinates, degrees."""
        return self.pack.lonlat

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of an encoder trained on these views."""
        return Preprocessing.of_pack(self.bands, self.pack.stretch, self.image_size)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self.pack.count * self._samples_per_place // self._batch_size

    @property
    def _samples_per_place(self) -> int:
        return PERIODS if self.plan.paired else 1

    def order(self, epoch: int) -> np.ndarray:
        """int64: the slots of an epoch in order; the published shuffle, seeded by (seed, epoch)."""
        seed = int(np.random.SeedSequence((self._seed, epoch)).generate_state(1)[0])
        if self.plan.paired:
            return np.array(reference_pair_order(PERIODS * self.pack.count, seed), np.int64)
        return PERIODS * np.array(_shuffled(self.pack.count, seed), np.int64)

    def drawn(self, epoch: int, step: int) -> Drawn:
        """The choices of step `step` (from 0) of an epoch, for all processes together."""
        return self.draw(self.order(epoch), epoch, step, slice(None))

    def draw(self, order: np.ndarray, epoch: int, step: int, rows: slice | None = None) -> Drawn:
        """The choices of step `step` (from 0) of an epoch.

        Args:
            order: of the epoch, see `order`.
            epoch: from 0.
            step: from 0.
            rows: of the whole batch; default: this process's. The batch is always drawn as a whole, so several processes share
            the batch of a single one.
        """
        rows = rows or self._rows
        slots = order[step * self._batch_size : (step + 1) * self._batch_size]
        generator = np.random.default_rng((self._seed, epoch, step))
        dates = draw_dates(generator, self.plan, self.pack.valid, slots)
        parameters = draw(generator, self.plan, self._batch_size, self.pack.chip_size, self._crop_scale)
        share = Parameters(**{field.name: getattr(parameters, field.name)[:, rows] for field in fields(Parameters)})
        return Drawn(slots[rows], dates[rows], share)


def reference_pair_order(n: int, seed: int) -> list[int]:
    """Order of `n` samples (n/2 places, two periods each) of the published sampler.

    Python's `random.Random(seed)` shuffles the places; each gives (2i, 2i + 1), early then late.
    """
    return [2 * place + period for place in _shuffled(n // PERIODS, seed) for period in range(PERIODS)]


def _shuffled(n: int, seed: int) -> list[int]:
    places = list(range(n))
    random.Random(seed).shuffle(places)
    return places


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
    # valid dates in uniformly random order, then the others
    order = np.argsort(np.where(allowed, generator.random(allowed.shape), 2.0), axis=1)
    dates = order[:, : plan.draw]
    if plan.replace:
        pick = np.floor(generator.random((len(slots), plan.draw)) * allowed.sum(axis=1, keepdims=True)).astype(np.int64)
        dates = np.take_along_axis(order, pick, axis=1)
    return align(generator, plan, valid, slots, dates) if plan.aligned else dates
