"""The outcome of a protocol for one method: scores with intervals, and the per-item table behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from caco_assets.downstream.datasets.classification import Part
from caco_assets.downstream.metrics import average_precision as ap
from caco_assets.downstream.metrics.bootstrap import accuracy, bootstrap_mean


@dataclass(frozen=True)
class Figure:
    """One score of one method. Shares are in [0, 1]."""

    metric: str
    value: float
    low: float
    high: float
    """Ends of the 95 % interval."""
    paired: bool = True
    """The per-item table gives this metric in a paired test (`metrics.paired.paired_gain`)."""
    note: str = ""


class Outcome(Protocol):
    """Predictions of one method for every test item."""

    @property
    def n(self) -> int:
        """Number of test items."""
        ...

    def figures(self, draws: int, rng: np.random.Generator) -> list[Figure]:
        """The scores, the main one first.

        Args:
            draws: resamples of the bootstrap.
            rng: random generator.
        """
        ...

    def table(self) -> Mapping[str, Any]:
        """Columns of the per-item table; `image` names the item."""
        ...


@dataclass(frozen=True)
class SingleLabel:
    """One class per image."""

    part: Part
    predictions: np.ndarray
    """(N,) int64."""

    @property
    def n(self) -> int:
        """Number of test images."""
        return len(self.part)

    def figures(self, draws: int, rng: np.random.Generator) -> list[Figure]:
        """Accuracy; its interval by a bootstrap over images."""
        right = (self.predictions == self.part.labels).astype(np.float64)
        return [Figure("accuracy", accuracy(self.part.labels, self.predictions), *bootstrap_mean(right, draws, rng))]

    def table(self) -> Mapping[str, Any]:
        """`image`, `label`, `prediction`."""
        labels, predictions = self.part.labels.astype(np.int16), self.predictions.astype(np.int16)
        return {"image": list(self.part.names), "label": labels, "prediction": predictions}


@dataclass(frozen=True)
class MultiLabel:
    """One score per class and image."""

    part: Part
    scores: np.ndarray
    """(N, K) float32; only their order counts."""
    classes: tuple[str, ...]
    batch: int = 0
    """Batch size of `micro_ap_batch`, which then is the main score; 0: not computed."""

    @property
    def n(self) -> int:
        """Number of test images."""
        return len(self.part)

    def figures(self, draws: int, rng: np.random.Generator) -> list[Figure]:
        """Macro and micro average precision, and the published mean over batches if requested; bootstrap over images."""
        labels, scores = self.part.labels, self.scores
        known = ap.with_positives(labels)
        absent = [name for k, name in enumerate(self.classes) if k not in known]
        note = f"mean over the {len(known)} of {len(self.classes)} classes with a positive test image" if absent else ""
        note += f" (none of {', '.join(absent)})" if absent else ""
        values = ap.bootstrap([ap.weighted_macro(labels, scores), ap.weighted_micro(labels, scores)], self.n, draws, rng)
        macro = Figure("macro_ap", ap.macro_ap(labels, scores), *ap.interval(values[:, 0]), note=note)
        micro = Figure("micro_ap", ap.micro_ap(labels, scores), *ap.interval(values[:, 1]), paired=False)
        if not self.batch:
            return [macro, micro]
        parts = ap.batches(self.n, self.batch)
        values = ap.bootstrap([ap.weighted_micro_batch(labels, scores, self.batch)], self.n, draws, rng, parts)
        note = f"mean of micro average precision over {len(parts)} consecutive batches of {parts[0].stop} images, as published"
        value = ap.micro_ap_batch(labels, scores, self.batch)
        return [Figure("micro_ap_batch", value, *ap.interval(values[:, 0]), paired=False, note=note), macro, micro]

    def table(self) -> Mapping[str, Any]:
        """`image`, `label` (0 or 1 of each class), `score` (of each class)."""
        return {"image": list(self.part.names), "label": list(self.part.labels), "score": list(self.scores.astype(np.float32))}
