"""What a protocol finds out about one method: its figures with their intervals, and the table of single items behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from caco_assets.downstream.datasets.labelled import Part
from caco_assets.downstream.metrics import accuracy, bootstrap_mean


@dataclass(frozen=True)
class Figure:
    """One number of one method. Shares are in [0, 1]."""

    metric: str
    value: float
    low: float
    high: float
    """Ends of the 95 % interval."""
    paired: bool = True
    """The table of single items gives this very metric in a paired test (`metrics.paired_gain`)."""
    note: str = ""


class Outcome(Protocol):
    """Answers of one method for every item it was tested on."""

    @property
    def n(self) -> int:
        """Items tested on."""
        ...

    def figures(self, draws: int, rng: np.random.Generator) -> list[Figure]:
        """The main figure first.

        Args:
            draws: resamples of the bootstrap.
            rng: where chance comes from.
        """
        ...

    def table(self) -> Mapping[str, Any]:
        """Columns of the per-item table; `image` names the item."""
        ...


@dataclass(frozen=True)
class SingleLabel:
    """One class of each image."""

    part: Part
    predictions: np.ndarray
    """(N,) int64."""

    @property
    def n(self) -> int:
        """Images tested on."""
        return len(self.part)

    def figures(self, draws: int, rng: np.random.Generator) -> list[Figure]:
        """Accuracy; its interval by a bootstrap over images."""
        right = (self.predictions == self.part.labels).astype(np.float64)
        return [Figure("accuracy", accuracy(self.part.labels, self.predictions), *bootstrap_mean(right, draws, rng))]

    def table(self) -> Mapping[str, Any]:
        """`image`, `label`, `prediction`."""
        labels, predictions = self.part.labels.astype(np.int16), self.predictions.astype(np.int16)
        return {"image": list(self.part.names), "label": labels, "prediction": predictions}
