"""Selects the headline score and its paired comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from caco_assets.downstream.metrics.paired import paired_gain
from caco_assets.evaluation.scorecard import Line, Scorecard, Section
from caco_assets.settings import Settings


@dataclass(frozen=True)
class Gain:
    """The candidate's accuracy minus another's on the same images, in [-1, 1]."""

    over: str
    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """The conclusion from the interval."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference shown"


@dataclass(frozen=True)
class Headline:
    """The main section, the candidate in it, and its paired gains."""

    section: Section
    candidate: Line
    gains: tuple[Gain, ...]
    real: bool
    """The images are the user's own or published ones, not the embedded twin."""


def headline(settings: Settings, card: Scorecard) -> Headline | None:
    """Choose the main section: `clean` before `paper`, real data before an embedded twin; None if nothing is measured.

    Gains are paired bootstraps over images (first seed of each).
    """
    tasks = settings.downstream.tasks
    # sorted is stable: equal ranks keep the order of the profile
    rows = sorted(tasks, key=lambda row: tasks[row].data is None)
    for protocol in ("clean", "paper"):
        for row in rows:
            section = card.find(row, protocol, "linear_probe")
            if section is not None:
                candidate = next(line for line in section.candidates if line.measured)
                return Headline(section, candidate, _gains(settings.paths.root, section, candidate), tasks[row].data is not None)
    return None


def _gains(root: Path, section: Section, candidate: Line) -> tuple[Gain, ...]:
    gains = []
    for line in section.lines:
        if line.role != "baseline" or not (line.items and candidate.items):
            continue
        ours, theirs = root / candidate.items[0], root / line.items[0]
        if ours.exists() and theirs.exists():
            gains.append(Gain(line.encoder, *paired_gain(ours, theirs)))
    return tuple(gains)
