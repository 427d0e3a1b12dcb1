"""The figures of an epoch: collected on the device, fetched in bundles, checked, handed to the sinks."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from caco_assets.errors import UserError
from caco_assets.pretraining.metrics import MetricsSink
from caco_assets.settings import Pretraining

# figures cross from the device once in so many steps: each crossing makes a GPU wait
_FETCH_EVERY = 10


class Record:
    """Figures of the current epoch: collected on the device, fetched in bundles, handed to the sinks."""

    def __init__(self, sinks: Sequence[MetricsSink], options: Pretraining) -> None:
        self._sinks, self._batch_size, self._epochs = sinks, options.batch_size, options.epochs
        self._waiting: list[tuple[int, int, float, dict[str, Tensor], Tensor]] = []
        self._rows: list[dict[str, float]] = []
        self._start = time.monotonic()
        self.note = ""

    def add(self, step: int, epoch: int, rate: float, metrics: dict[str, Tensor], slots: Tensor) -> None:
        """One step's figures, still on the device."""
        self._waiting.append((step, epoch, rate, metrics, slots))
        if len(self._waiting) == _FETCH_EVERY:
            self._fetch()

    def start_epoch(self) -> None:
        """Forget the last epoch's figures and start the clock."""
        self._rows, self._start = [], time.monotonic()

    def end_epoch(self) -> dict[str, float]:
        """The epoch's means, as `epoch_…`, and its speed."""
        self._fetch()
        means = {f"epoch_{name}": float(np.mean([row[name] for row in self._rows])) for name in self._rows[0]}
        return means | {"images_per_s": self._speed()}

    def log(self, step: int, values: dict[str, float]) -> None:
        """To all sinks."""
        for sink in self._sinks:
            sink.log(step, values)

    def _fetch(self) -> None:
        if not self._waiting:
            return
        epoch = self._waiting[-1][1]
        names = list(self._waiting[0][3])
        table = torch.stack([torch.stack([metrics[name] for name in names]) for *_, metrics, _ in self._waiting]).tolist()
        for (step, _, rate, _, slots), figures in zip(self._waiting, table, strict=True):
            row = dict(zip(names, figures, strict=True))
            if not math.isfinite(row["loss"]):
                shown = ", ".join(str(slot) for slot in slots.tolist()[:8])
                raise UserError(
                    f"loss={row['loss']} at epoch {epoch + 1}, step {step} (slots {shown}, …): training has diverged; lower "
                    "pretraining.learning_rate or raise pretraining.temperature; the last checkpoint is kept"
                )
            self._rows.append(row)
            self.log(step, {"epoch": epoch, "learning_rate": rate, **row})
        self.note = f"epoch {epoch + 1}/{self._epochs}, {self._speed():.0f} images/s, loss {self._rows[-1]['loss']:.3f}"
        self._waiting = []

    def _speed(self) -> float:
        return len(self._rows) * self._batch_size / (time.monotonic() - self._start)
