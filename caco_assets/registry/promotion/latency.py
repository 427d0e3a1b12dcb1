"""What an embedding costs: processor time of one thread on a fixed batch, so that a busy machine does not take the decision."""

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
    """Milliseconds of processor time per image, round by round; both encoders are timed in each round."""

    mine: tuple[float, ...]
    theirs: tuple[float, ...] | None

    @property
    def best(self) -> float:
        """The quickest round: whatever disturbs a measurement only adds to it."""
        return min(self.mine)

    @property
    def ratios(self) -> tuple[float, ...] | None:
        """Mine over theirs, round by round, smallest first; None without a rival."""
        return None if self.theirs is None else tuple(sorted(a / b for a, b in zip(self.mine, self.theirs, strict=True)))


def measure(mine: Encoder, theirs: Encoder | None, rule: Latency) -> Timing:
    """Time both encoders in turns, each at its own input side, on one thread.

    Wall-clock time would measure the neighbours too: `time.thread_time` stands still while another process has the processor. What
    is left of a neighbour's influence (caches, clock rate) hits both of a round alike.
    """
    runs = [_batch(encoder, rule.images) for encoder in (mine, theirs) if encoder is not None]
    times: list[list[float]] = [[] for _ in runs]
    # one thread, the caller's: only its own time can be read without that of the rest of the process
    with torch_threads(1):
        for encoder, pixels, fmt in runs:
            # the first call of a shape chooses kernels and fills caches
            encoder.features(pixels, fmt)
        for turn in range(rule.rounds):
            # now the one first, now the other: neither always finds the caches that the other left
            for index in range(len(runs)) if turn % 2 else reversed(range(len(runs))):
                encoder, pixels, fmt = runs[index]
                start = time.thread_time()
                encoder.features(pixels, fmt)
                times[index].append(1000 * (time.thread_time() - start) / rule.images)
    return Timing(tuple(times[0]), tuple(times[1]) if theirs is not None else None)


def judge(timing: Timing, rule: Latency, side: int) -> list[Finding]:
    """The rules about time: the quickest round within the budget, and not surely slower than the champion allows.

    Args:
        timing: of `measure`.
        rule: the policy's.
        side: of the input, pixels; for the sentence.
    """
    what = f"{timing.best:.1f} ms of one processor per image of {side} px, the quickest of {len(timing.mine)} rounds"
    budget = Finding(
        "latency", timing.best <= rule.max_ms, f"{what} (at most {rule.max_ms:g} allowed)",
        timing.best, bound=rule.max_ms, key="latency", unit="ms",
    )  # fmt: skip
    if timing.ratios is None or rule.max_ratio is None:
        return [budget]
    middle, (low, high) = statistics.median(timing.ratios), median_interval(timing.ratios)
    sentence = (
        f"{middle:.2f} times the champion's [{low:.2f}, {high:.2f}] (fails when surely above {rule.max_ratio:g}; "
        f"{len(timing.ratios)} rounds in turns)"
    )
    slower = Finding(
        "latency beside champion", low <= rule.max_ratio, sentence, middle, low, high, rule.max_ratio, key="latency", unit="x"
    )
    return [budget, slower]


def median_interval(ordered: Sequence[float], doubt: float = 0.025) -> tuple[float, float]:
    """Interval of the median from order statistics of ascending values; each side is wrong with a chance of at most `doubt`.

    Whatever their distribution, each value lies below the median with chance 1/2: the count below is binomial (the sign test's
    interval; Conover, Practical Nonparametric Statistics, ch. 3.2). Too few values for the doubt: their whole range.
    """
    from scipy.stats import binom

    count = len(ordered)
    rank = int(binom.ppf(doubt, count, 0.5))
    # the largest rank at which fewer than so many below the median is unlikely enough
    while rank > 0 and binom.cdf(rank - 1, count, 0.5) > doubt:
        rank -= 1
    rank = max(rank, 1)
    return ordered[rank - 1], ordered[count - rank]


def _batch(encoder: Encoder, images: int) -> tuple[Encoder, np.ndarray, PixelFormat]:
    """The encoder on the CPU with archive values uint16 (images, C, S, S) of its own side, the same for all of a shape."""
    wanted = encoder.preprocessing
    shape = (images, len(wanted.bands), wanted.size, wanted.size)
    pixels = np.random.default_rng(0).integers(0, 10_000, shape, dtype=np.uint16)
    return encoder.to("cpu").eval(), pixels, replace(ARCHIVE, bands=wanted.bands)
