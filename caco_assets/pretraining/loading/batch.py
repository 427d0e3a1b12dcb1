"""The protocol of batches that the training loop needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor


class Batch(Protocol):
    """One step's samples."""

    @property
    def views(self) -> Tensor:
        """float32 (V, B, C, H, W)."""
        ...

    @property
    def slots(self) -> Tensor:
        """int64 (B,)."""
        ...


class Batches(Protocol):
    """A source of batches; a pure function of the epoch."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in each epoch."""
        ...

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch."""
        ...
