"""Sanity checks of scores: invalid numbers, and scores so far below an untrained network that only a fault explains them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from caco_assets.downstream.score_rows import ScoreRow

RANDOM = "random"
"""Name of the untrained network among the baselines."""
FAR = 0.05
"""An encoder that has learned almost nothing stays near its random start: the weakest one measured was 0.033 below on real EuroSAT,
with an interval of 0.017. Wrong bands, a wrong stretch or damaged weights cost tenths."""


def invalid_scores(rows: Iterable[ScoreRow]) -> list[str]:
    """One line for each measured row with invalid numbers: not finite, outside [0, 1], or outside their interval."""
    return [f"{_name(row)}: {wrong}" for row in rows if row.status == "measured" and (wrong := _wrong(row))]


def _wrong(row: ScoreRow) -> str:
    value, low, high = row.value, row.ci_low, row.ci_high
    for name, number in (("value", value), ("ci_low", low), ("ci_high", high)):
        if number is None or not math.isfinite(number):
            return f"{name} is {'missing' if number is None else number}"
        if not 0 <= number <= 1:
            return f"{name} is {number:g}, outside [0, 1]"
    if value is not None and low is not None and high is not None and not low <= value <= high:
        return f"the interval [{low:g}, {high:g}] does not hold the value {value:g}"
    return "" if row.n > 0 else f"measured on {row.n} items"


@dataclass(frozen=True)
class Below:
    """A score below that of the random network of the same backbone."""

    where: str
    value: float
    """Mean over seeds."""
    high: float
    """The highest upper end of its intervals."""
    random: float
    """Mean over seeds."""
    far: bool
    """Its whole interval lies more than `FAR` below that of random weights, and pixels were preprocessed as the encoder needs."""

    def __str__(self) -> str:
        return f"{self.where}: {self.value:.3f} (up to {self.high:.3f}), random weights {self.random:.3f}"


def below_random(rows: Sequence[ScoreRow], random: Sequence[ScoreRow]) -> list[Below]:
    """Evaluations in which an encoder is worse than an untrained one.

    `paper` feeds pixels without the normalisation of training, so a large gap is no sign of a fault there.

    Args:
        rows: of encoders; their random baseline may be among them.
        random: of the untrained network.
    """
    chance = {setting: group for (setting, _), group in _grouped(random).items()}
    found = []
    for (setting, encoder), group in _grouped(row for row in rows if row.encoder != RANDOM and row.role == "candidate").items():
        if setting not in chance:
            continue
        value, start = (sum(row.value or 0.0 for row in each) / len(each) for each in (group, chance[setting]))
        high = max(row.ci_high if row.ci_high is not None else 1.0 for row in group)
        if value < start:
            # on a few dozen images overlapping intervals are inconclusive
            low = min(row.ci_low if row.ci_low is not None else 0.0 for row in chance[setting])
            far = high < min(start - FAR, low) and group[0].protocol == "clean"
            found.append(Below("/".join([encoder, *(str(part) for part in setting)]), value, high, start, far))
    return found


_Key = tuple[tuple[str | int, ...], str]


def _grouped(rows: Iterable[ScoreRow]) -> dict[_Key, list[ScoreRow]]:
    """Measured rows by evaluation and encoder, without NaN rows, which `invalid_scores` reports."""
    groups: dict[_Key, list[ScoreRow]] = {}
    for row in rows:
        if row.status == "measured" and row.value is not None and math.isfinite(row.value):
            groups.setdefault(((row.row, row.protocol, row.method, row.size, row.metric), row.encoder), []).append(row)
    return groups


def _name(row: ScoreRow) -> str:
    return "/".join(str(part) for part in (row.row, row.encoder, row.protocol, row.method, row.size, row.seed, row.metric))
