"""Latency of an embedding: CPU time of one thread on a fixed batch, so that the load of the machine does not decide."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from caco_assets.core.torch_threads import torch_threads
from caco_assets.pretraining.encoder.encoder import ARCHIVE, Encoder, PixelFormat
from caco_assets.registry.promotion.decision import Finding
from caco_assets.registry.promotion.policy import Latency


@dataclass(frozen=True)
class Timing:
    """Milliseconds of CPU time per image for each round; both encoders are timed in each round."""

    mine: tuple[float, ...]
    theirs: tuple[float, ...] | None

    @property
    def best(self) -> float:
        """The fastest round: disturbances only add time."""
        return min(self.mine)

    @property
    def ratios(self) -> tuple[float, ...] | None:
        """Mine over theirs for each round, ascending; None: there is no other encoder."""
        return None if self.theirs is None else tuple(sorted(a / b for a, b in zip(self.mine, self.theirs, strict=True)))


def measure(mine: Encoder, theirs: Encoder | None, rule: Latency) -> Timing:
    """Time both encoders in turns, each at its own input size, on one thread.

    `time.thread_time` excludes the time that other processes use. Their remaining influence (caches, clock rate) affects both
    encoders of a round alike.
    """
    runs = [_batch(encoder, rule.images) for encoder in (mine, theirs) if encoder is not None]
    times: list[list[float]] = [[] for _ in runs]
    # `thread_time` sees the calling thread only
    with torch_threads(1):
        for encoder, pixels, fmt in runs:
            # the first call of a shape selects kernels and fills caches
            encoder.features(pixels, fmt)
        for number in range(rule.rounds):
            # alternate the order: neither always runs on the caches that the other left
            for index in range(len(runs)) if number % 2 else reversed(range(len(runs))):
                encoder, pixels, fmt = runs[index]
                start = time.thread_time()
                encoder.features(pixels, fmt)
                times[index].append(1000 * (time.thread_time() - start) / rule.images)
    return Timing(tuple(times[0]), tuple(times[1]) if theirs is not None else None)


def latency_findings(timing: Timing, rule: Latency, size: int) -> list[Finding]:
    """Apply the latency rules: the fastest round is within the limit, and the ratio to the champion is not significantly above.

    Args:
        timing: of `measure`.
        rule: of the policy.
        size: of the input, pixels; for the sentence.
    """
    what = f"{timing.best:.1f} ms CPU time per image of {size} px, the fastest of {len(timing.mine)} rounds"
    budget = Finding(
        "latency", timing.best <= rule.max_ms, f"{what} (limit {rule.max_ms:g})",
        timing.best, bound=rule.max_ms, key="latency", unit="ms",
    )  # fmt: skip
    if timing.ratios is None or rule.max_ratio is None:
        return [budget]
    middle, (low, high) = statistics.median(timing.ratios), median_interval(timing.ratios)
    sentence = (
        f"{middle:.2f} times the champion's [{low:.2f}, {high:.2f}] (lower bound must not exceed {rule.max_ratio:g}; "
        f"{len(timing.ratios)} rounds)"
    )
    slower = Finding(
        "latency beside champion", low <= rule.max_ratio, sentence, middle, low, high, rule.max_ratio, key="latency", unit="x"
    )
    return [budget, slower]


def median_interval(ordered: Sequence[float], alpha: float = 0.025) -> tuple[float, float]:
    """Interval of the median from order statistics of ascending values; each side errs with probability at most `alpha`.

    For any distribution, a value lies below the median with probability 1/2, so the count below is binomial (the sign test's
    interval; Conover, Practical Nonparametric Statistics, ch. 3.2). With too few values for `alpha` it is their whole range.
    """
    from scipy.stats import binom

    count = len(ordered)
    rank = int(binom.ppf(alpha, count, 0.5))
    # the largest rank such that fewer values below the median are unlikely enough
    while rank > 0 and binom.cdf(rank - 1, count, 0.5) > alpha:
        rank -= 1
    rank = max(rank, 1)
    return ordered[rank - 1], ordered[count - rank]


def _batch(encoder: Encoder, images: int) -> tuple[Encoder, np.ndarray, PixelFormat]:
    """The encoder on the CPU, and archive values uint16 (images, C, S, S) at its own input size; the same for each shape."""
    wanted = encoder.preprocessing
    shape = (images, len(wanted.bands), wanted.size, wanted.size)
    pixels = np.random.default_rng(0).integers(0, 10_000, shape, dtype=np.uint16)
    return encoder.to("cpu").eval(), pixels, replace(ARCHIVE, bands=wanted.bands)
