"""Metrics of an epoch: collected on the device, fetched in batches, checked, and sent to the sinks."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from caco_assets.pretraining import distributed
from caco_assets.pretraining.training.divergence import BadStep, Diverged
from caco_assets.pretraining.training.metrics_log import MetricsSink
from caco_assets.settings import Pretraining

# metrics are copied from the device once per this many steps; on a GPU they are read one bundle later, after the copy is done
_FETCH_EVERY = 10
# metrics that stop the training if not finite
_CHECKED = ("loss", "grad_norm")
# keys of a step's line that are not metrics of the objective
_PLACE = {"step", "epoch", "learning_rate"}


class _Step(NamedTuple):
    step: int
    rate: float
    metrics: dict[str, Tensor]
    slots: Tensor


class _Coming(NamedTuple):
    """A bundle that is being copied to the host."""

    steps: list[_Step]
    names: list[str]
    table: Tensor
    sent: torch.Event | None


class Record:
    """Metrics of the current epoch: collected on the device, fetched in bundles, sent to the sinks."""

    def __init__(self, sinks: Sequence[MetricsSink], options: Pretraining, steps_per_epoch: int) -> None:
        self._sinks, self._batch_size, self._epochs = sinks, options.batch_size, options.epochs
        self._steps_per_epoch = steps_per_epoch
        self._waiting: list[_Step] = []
        self._coming: _Coming | None = None
        self._rows: list[dict[str, float]] = []
        self._epoch, self._known, self._start = 0, 0, time.monotonic()
        self.note = ""

    def start_epoch(self, epoch: int, lines: Sequence[dict[str, float]] = ()) -> None:
        """Clear the last epoch's metrics and start the clock; `lines` are this epoch's first steps, from before a resume."""
        self._rows = [{name: value for name, value in line.items() if name not in _PLACE} for line in lines]
        self._epoch, self._known, self._start = epoch, len(self._rows), time.monotonic()

    def add(self, step: int, rate: float, metrics: dict[str, Tensor], slots: Tensor) -> None:
        """Add one step's metrics, still on the device."""
        self._waiting.append(_Step(step, rate, metrics, slots))
        if len(self._waiting) == _FETCH_EVERY:
            self._send()

    def end_epoch(self) -> dict[str, float]:
        """The epoch's means, as `epoch_…`, and its speed."""
        self.fetch()
        means = {f"epoch_{name}": float(np.mean([row[name] for row in self._rows])) for name in self._rows[0]}
        # no speed for an epoch whose last step was already in the checkpoint
        return means | ({"images_per_s": self._speed()} if len(self._rows) > self._known else {})

    def log(self, step: int, values: dict[str, float]) -> None:
        """Send values to all sinks."""
        for sink in self._sinks:
            sink.log(step, values)

    def fetch(self) -> None:
        """Send all pending metrics from the device to the sinks.

        Raises:
            Diverged: the loss or the gradient of one of these steps is not finite; names the first.
        """
        self._send()
        self._receive()

    def _send(self) -> None:
        """Copy pending metrics to the host and process the previous bundle: the host does not wait for running steps."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        names = list(waiting[0].metrics)
        table = torch.stack([torch.stack([each.metrics[name] for name in names]) for each in waiting])
        table = distributed.mean(table)
        self._receive()
        if not table.is_cuda:
            self._coming = _Coming(waiting, names, table, None)
            self._receive()
            return
        host = torch.empty(table.shape, dtype=table.dtype, pin_memory=True).copy_(table, non_blocking=True)
        self._coming = _Coming(waiting, names, host, torch.cuda.current_stream(table.device).record_event())

    def _receive(self) -> None:
        """Send the copied bundle to the sinks."""
        if self._coming is None:
            return
        coming, self._coming = self._coming, None
        if coming.sent is not None:
            coming.sent.synchronize()
        for each, figures in zip(coming.steps, coming.table.tolist(), strict=True):
            row = dict(zip(coming.names, figures, strict=True))
            for name in _CHECKED:
                if not math.isfinite(row.get(name, 0.0)):
                    in_epoch = each.step - 1 - self._epoch * self._steps_per_epoch
                    raise Diverged(BadStep(self._epoch, each.step, in_epoch, name, str(row[name]), each.slots.tolist()))
            self._rows.append(row)
            self.log(each.step, {"epoch": self._epoch, "learning_rate": each.rate, **row})
        self.note = f"epoch {self._epoch + 1}/{self._epochs}, {self._speed():.0f} images/s, loss {self._rows[-1]['loss']:.3f}"

    def _speed(self) -> float:
        return (len(self._rows) - self._known) * self._batch_size / (time.monotonic() - self._start)
