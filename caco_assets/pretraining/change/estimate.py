"""Change estimates of places: moving averages of the change ratio, labelled by a mixture of two Gaussians.

Source: CACo (Mall et al., CVPR 2023), section 3.3, and its public implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caco_assets.pretraining import distributed

ChangeEstimate = Literal["distance", "ratio", "ema_ratio"]

UNSEEN, UNCHANGED, CHANGED = -1, 0, 1


@dataclass(frozen=True)
class Labelling:
    """A mixture of two Gaussians fitted to the change estimates, the lower component first, and the resulting labels."""

    label: NDArray[np.int64]
    """(slots,): -1 unseen, 0 unchanged, 1 changed."""
    threshold: float
    """Lowest value labelled "changed"; +inf when nothing is changed. With non-monotone labels: the crossing, for information."""
    mixture: NDArray[np.float64]
    """(3, 2): weights, means and deviations of the lower and the higher component; NaN where there is none."""


def label_changes(values: NDArray[np.floating], seen: NDArray[np.bool_], *, seed: int | None, monotone: bool) -> Labelling:
    """Split the seen values into unchanged and changed.

    Args:
        values: (slots,) change estimates; those of unseen slots are ignored.
        seen: (slots,) whether the slot has an estimate.
        seed: of the mixture's initialisation; None: fresh entropy, as published.
        monotone: label 1 from the threshold upwards; otherwise the more likely component, as published.

    Returns:
        The labels. With fewer than two different seen values there is no mixture: all seen slots are unchanged.
    """
    label = np.full(len(values), UNSEEN, dtype=np.int64)
    label[seen] = UNCHANGED
    found = values[seen].astype(np.float64)
    if len(np.unique(found)) < 2:
        return Labelling(label, np.inf, np.full((3, 2), np.nan))
    from sklearn.mixture import GaussianMixture

    random_state = np.random.RandomState() if seed is None else np.random.RandomState(seed)
    mixture = GaussianMixture(n_components=2, random_state=random_state).fit(found[:, None])
    fitted = (np.array(getattr(mixture, name)).ravel() for name in ("weights_", "means_", "covariances_"))
    weights, means, variances = fitted
    order = np.argsort(means)
    parts = np.stack([weights, means, np.sqrt(variances)])[:, order]
    threshold = crossing(parts)
    label[seen] = found >= threshold if monotone else mixture.predict(found[:, None]) == order[1]
    return Labelling(label, threshold, parts)


def crossing(mixture: NDArray[np.float64]) -> float:
    """The first point at or above the lower mean where the higher component is the more likely one.

    If the components cross between the means, it is that crossing. A higher component too light to win even at its own mean may
    win further up, which is then the threshold, or nowhere: +inf, nothing is changed.

    Args:
        mixture: (3, 2): weights, means and deviations of the lower and the higher component.
    """
    (weight0, weight1), (mean0, mean1), (sd0, sd1) = mixture
    # log odds of the higher component: a·x² + b·x + c
    a = 1 / (2 * sd0**2) - 1 / (2 * sd1**2)
    b = mean1 / sd1**2 - mean0 / sd0**2
    c = mean0**2 / (2 * sd0**2) - mean1**2 / (2 * sd1**2) + np.log(weight1 * sd0 / (weight0 * sd1))
    if (a * mean0 + b) * mean0 + c >= 0:
        return float(mean0)
    roots = np.roots([a, b, c])
    above = roots.real[(np.abs(roots.imag) == 0) & (roots.real > mean0)]
    return float(above.min()) if len(above) else float("inf")


class ChangeState(nn.Module):
    """The change estimate of every slot (2 · place + period), in buffers: saved with the objective, on its device."""

    long: Tensor
    """(slots,): moving average of the long-term distance; `short` and `ratio` likewise."""
    short: Tensor
    ratio: Tensor
    last_long: Tensor
    """(slots,): the long-term distance when the slot was last seen; `last_ratio` likewise."""
    last_ratio: Tensor
    seen: Tensor
    label: Tensor
    threshold: Tensor
    mixture: Tensor

    def __init__(self, slots: int, *, beta: float, kind: ChangeEstimate = "ema_ratio") -> None:
        """`beta` is the weight of the old value in the moving averages; labels come from the estimate `kind`."""
        super().__init__()
        self.beta = beta
        self.judge: Callable[[ChangeState], dict[str, float]] = lambda _: {}
        """Further metrics for the log, such as the accuracy of the estimates. Nothing here reads them."""
        self.kind: ChangeEstimate = kind
        for name in ("long", "short", "ratio", "last_long", "last_ratio"):
            self.register_buffer(name, torch.zeros(slots))
        self.register_buffer("seen", torch.zeros(slots, dtype=torch.int64))
        self.register_buffer("label", torch.zeros(slots, dtype=torch.int64))
        self.register_buffer("threshold", torch.tensor(torch.inf))
        self.register_buffer("mixture", torch.full((3, 2), torch.nan))

    @torch.no_grad()
    def update(self, slots: Tensor, long: Tensor, short: Tensor, ratio: Tensor) -> None:
        """Add one batch: the first observation sets the value, later ones are averaged. All (N,); slots are unique in a batch."""
        first = self.seen[slots] == 0
        for average, value in ((self.long, long), (self.short, short), (self.ratio, ratio)):
            old = average[slots]
            average[slots] = torch.where(first, value, self.beta * old + (1 - self.beta) * value)
        self.last_long[slots], self.last_ratio[slots] = long, ratio
        self.seen[slots] += 1

    @property
    def estimates(self) -> dict[ChangeEstimate, Tensor]:
        """All estimates, each (slots,), including those that do not make the labels."""
        return {"distance": self.last_long, "ratio": self.last_ratio, "ema_ratio": self.ratio}

    @property
    def estimate(self) -> Tensor:
        """(slots,): the estimate that makes the labels."""
        return self.estimates[self.kind]

    @property
    def by_ratio(self) -> bool:
        """Whether the labels come from a ratio, not from the long-term distance alone."""
        return self.kind != "distance"

    def relabel(self, *, seed: int | None, monotone: bool) -> None:
        """Label all slots again from the current estimates; rank zero does it, and the other processes receive its labels."""
        if distributed.rank() == 0:
            labelling = label_changes(self.estimate.cpu().numpy(), self.seen.cpu().numpy() > 0, seed=seed, monotone=monotone)
            self.label.copy_(torch.from_numpy(labelling.label))
            self.threshold.fill_(labelling.threshold)
            self.mixture.copy_(torch.from_numpy(labelling.mixture))
        distributed.from_first([self.label, self.threshold, self.mixture])

    def summary(self) -> dict[str, float]:
        """Threshold, counts of place-periods, shares, and the metrics of `judge`, for the log."""
        seen = int((self.label != UNSEEN).sum())
        changed = int((self.label == CHANGED).sum())
        threshold = float(self.threshold)
        # without a threshold there is no line in the plot: a share of 0 shows it
        found = {"change_threshold": threshold} if np.isfinite(threshold) else {}
        counts = {"changed_slots": changed, "unchanged_slots": seen - changed, "unseen_slots": len(self.label) - seen}
        shares = {"changed_share": changed / max(seen, 1), "seen_share": seen / len(self.label)}
        return {**found, **counts, **shares, **self.judge(self)}


def draw_histogram(path: Path, state: ChangeState) -> None:
    """Draw the seen estimates as a histogram with the two components and the threshold, and write a PNG to `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = state.estimate[state.seen > 0].cpu().numpy().astype(np.float64)
    label = state.label[state.seen > 0].cpu().numpy()
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    # the last percent of a ratio's long tail would squeeze the rest into one bar
    top = float(np.quantile(values, 0.99)) if len(values) else 1.0
    shown = np.clip(values, None, top)
    bins = np.linspace(min(float(shown.min()), 0.0) if len(values) else 0.0, max(top, 1e-9), 61)
    axes.hist(shown, bins=bins.tolist(), density=len(values) > 0, color="0.8", label="estimates (last bar: and above)")
    x = np.linspace(bins[0], bins[-1], 400)
    for (weight, mean, deviation), name, colour in zip(
        state.mixture.cpu().numpy().astype(np.float64).T, ("lower component", "higher component"), ("C0", "C3"), strict=True
    ):
        if np.isfinite(mean):
            density = weight * np.exp(-(((x - mean) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))
            axes.plot(x, density, color=colour, label=name)
    threshold = float(state.threshold)
    if np.isfinite(threshold):
        axes.axvline(threshold, color="k", linestyle="--", label=f"threshold {threshold:.3g}")
    axes.set_title(f"{int((label == CHANGED).sum())} of {len(label)} place-periods labelled changed")
    axes.set_xlabel("change ratio r" if state.by_ratio else "long-term distance")
    axes.set_ylabel("density")
    axes.legend()
    figure.savefig(path, dpi=100, metadata={"Software": None})
