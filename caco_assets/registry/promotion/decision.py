"""The decision on a challenger: each rule of the policy with its value, bound and a sentence. Pure: no server, no alias moves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from caco_assets.downstream.metrics.paired import paired_gain
from caco_assets.downstream.score_rows import ScoreRow
from caco_assets.registry.promotion.policy import MainRule, NotCollapsed, Policy

MAIN_ROW = "main_row"
"""Key of the finding that no main row is measured; it cannot be overridden."""
COSTS = ("ms", "MB", "x")
"""Units in which less is better."""


@dataclass(frozen=True)
class Finding:
    """The result of one rule."""

    rule: str
    passed: bool
    sentence: str
    figure: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float | None = None
    """What `low` (without an interval: `figure`) must exceed; if `unit` is a cost, what it must not exceed."""
    key: str = ""
    """The section of the policy, or the name of a rule that cannot be overridden."""
    unit: str = ""
    """Of figure and bound: `share`, `ms`, `MB`, `x`, or none."""

    def row(self) -> dict[str, str]:
        """The rule as a row of a table for people."""
        shown = "–" if self.figure is None else _shown(self.figure, self.unit)
        interval = (
            "" if self.low is None or self.high is None else f" [{_shown(self.low, self.unit)}, {_shown(self.high, self.unit)}]"
        )
        sense = "≤" if self.unit in COSTS else ">"
        bound = "–" if self.bound is None else f"{sense} {_shown(self.bound, self.unit)}"
        verdict = "pass" if self.passed else "FAIL"
        return {"rule": self.rule, "verdict": verdict, "figure": shown + interval, "bound": bound, "finding": self.sentence}


@dataclass(frozen=True)
class Decision:
    """What the policy decides about one version."""

    model: str
    version: str
    champion: str | None
    """Version it was compared with; None: there was none, so only the absolute rules applied."""
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether there are rules and all of them hold."""
        return bool(self.findings) and all(finding.passed for finding in self.findings)

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The rules that do not hold."""
        return tuple(finding for finding in self.findings if not finding.passed)

    def text(self) -> str:
        """A table for people."""
        against = f"against champion {self.champion}" if self.champion else "no champion to compare with"
        verdict = "passes" if self.passed else "does not pass"
        lines = [f"{self.model} version {self.version} {verdict} ({against})"]
        width = max((len(finding.rule) for finding in self.findings), default=0)
        for finding in self.findings:
            mark = "pass" if finding.passed else "FAIL"
            lines.append(f"  {mark}  {finding.rule:<{width}}  {finding.sentence}")
        return "\n".join(lines)

    def message(self) -> dict[str, Any]:
        """The decision as fields of a notification."""
        return {
            "version": self.version,
            "uri": f"models:/{self.model}/{self.version}",
            "compared_with": self.champion,
            "passed": self.passed,
            "failed": [finding.rule for finding in self.failed],
            "verdict": self.text(),
            "rules": [finding.row() for finding in self.findings],
        }

    def to_json(self) -> str:
        """JSON text, with `passed` for people; `from_json` is the inverse."""
        return json.dumps({"passed": self.passed, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Decision:
        """The inverse of `to_json`."""
        fields = json.loads(text)
        findings = tuple(Finding(**finding) for finding in fields["findings"])
        return cls(fields["model"], fields["version"], fields["champion"], findings)


def main_rule(policy: Policy, rows: Sequence[ScoreRow]) -> MainRule | None:
    """The first rule of `policy.main` whose row is measured."""
    return next((rule for rule in policy.main if _pick(rows, rule.row, rule.protocol, rule.method, rule.size)), None)


def weigh(
    policy: Policy, challenger: Sequence[ScoreRow], champion: Sequence[ScoreRow] | None, random: Sequence[ScoreRow], root: Path
) -> list[Finding]:
    """Apply the rules about scores.

    Args:
        policy: the rules.
        challenger: its rows.
        champion: rows of the champion on the same data; None: there is no champion.
        random: rows of the untrained encoder on the same data.
        root: folder that `ScoreRow.items` is relative to.

    Raises:
        UserError: rows to be compared are not about the same images.
    """
    rule = main_rule(policy, challenger)
    if rule is None:
        wanted = ", ".join(f"{rule.row} ({rule.protocol}, {rule.method}, {rule.size} px)" for rule in policy.main)
        measured = ", ".join(sorted({row.row for row in challenger if row.status == "measured"})) or "none"
        sentence = f"no row of the policy's `main` is measured: {wanted}; measured: {measured}"
        return [Finding("main row", False, sentence, key=MAIN_ROW)]
    beats_random = _gain(f"beats random on {rule.row}", policy, rule, policy.baseline.margin, challenger, random, "random", root)
    findings = [replace(beats_random, key="baseline")]
    if champion is None:
        return findings
    beats = _gain(f"beats champion on {rule.row}", policy, rule, rule.margin, challenger, champion, "the champion", root)
    findings.append(replace(beats, key="main"))
    return findings + _others(policy, rule, challenger, champion, root)


def not_collapsed(features: np.ndarray, rule: NotCollapsed) -> Finding:
    """Whether the features (N, D) of different images differ, in more than a few directions."""
    rank, spread = effective_rank(features), relative_spread(features)
    passed = bool(np.isfinite(features).all()) and rank > rule.min_effective_rank and spread > rule.min_spread
    sentence = (
        f"effective rank {rank:.1f} of {features.shape[1]} (must exceed {rule.min_effective_rank:g}), "
        f"spread {spread:.3f} (must exceed {rule.min_spread:g})"
    )
    return Finding("not collapsed", passed, sentence, figure=rank, bound=rule.min_effective_rank, key="not_collapsed")


def effective_rank(features: np.ndarray) -> float:
    """exp(entropy) of the normalized singular values of centred (N, D) features (Roy and Vetterli 2007); 0 if constant."""
    values = np.nan_to_num(features.astype(np.float64))
    singular = np.linalg.svd(values - values.mean(axis=0), compute_uv=False)
    if singular.sum() == 0:
        return 0.0
    share = singular[singular > 0] / singular.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def relative_spread(features: np.ndarray) -> float:
    """Root mean square distance of (N, D) features from their mean, divided by the length of the mean; 0 if all are 0."""
    values = np.nan_to_num(features.astype(np.float64))
    mean = values.mean(axis=0)
    distance = float(np.sqrt(((values - mean) ** 2).sum(axis=1).mean()))
    length = float(np.linalg.norm(mean))
    return distance / length if length > 0 else float(distance > 0)


def _gain(
    name: str,
    policy: Policy,
    rule: MainRule,
    margin: float,
    challenger: Sequence[ScoreRow],
    other: Sequence[ScoreRow],
    other_name: str,
    root: Path,
) -> Finding:
    """Whether the challenger beats `other` on the main row: the lower bound of the paired gain exceeds the margin."""
    mine = _pick(challenger, rule.row, rule.protocol, rule.method, rule.size)
    theirs = _pick(other, rule.row, rule.protocol, rule.method, rule.size)
    if mine is None or theirs is None:
        return Finding(name, False, f"{other_name} has no measured {rule.protocol} {rule.method} at {rule.size} px on {rule.row}")
    gain, low, high = _paired(mine, theirs, policy, root)
    sentence = (
        f"{mine.value:.1%} against {theirs.value:.1%} of {other_name}: {_points(gain, low, high)} "
        f"(lower bound must exceed {100 * margin:g}; {mine.n} images)"
    )
    return Finding(name, low > margin, sentence, gain, low, high, margin, unit="share")


def _others(
    policy: Policy, main: MainRule, challenger: Sequence[ScoreRow], champion: Sequence[ScoreRow], root: Path
) -> list[Finding]:
    """Whether any other row of the champion is significantly worse."""
    wanted, findings = policy.others, []
    keys = {(row.row, row.size) for row in champion if row.protocol == wanted.protocol and row.method == wanted.method}
    decided = {(main.row, main.size)} if (main.protocol, main.method) == (wanted.protocol, wanted.method) else set()
    for row, size in sorted(keys - decided):
        mine, theirs = (_pick(rows, row, wanted.protocol, wanted.method, size) for rows in (challenger, champion))
        if theirs is None:
            continue
        name = f"not worse on {row}, {size} px"
        if mine is None:
            findings.append(Finding(name, False, "measured for the champion, not for the challenger", key="others"))
            continue
        gain, low, high = _paired(mine, theirs, policy, root)
        worse = gain < -wanted.tolerance and high < 0
        sentence = f"{_points(gain, low, high)} (may be at most {100 * wanted.tolerance:g} points worse; {mine.n} images)"
        findings.append(Finding(name, not worse, sentence, gain, low, high, -wanted.tolerance, "others", "share"))
    return findings


def _pick(rows: Sequence[ScoreRow], row: str, protocol: str, method: str, size: int) -> ScoreRow | None:
    """The measured row with per-item predictions; of several seeds the smallest, so that both sides use the same."""
    found = [
        each
        for each in rows
        if (each.row, each.protocol, each.method, each.size) == (row, protocol, method, size)
        and each.status == "measured"
        and each.items is not None
    ]
    return min(found, key=lambda each: each.seed, default=None)


def _paired(mine: ScoreRow, theirs: ScoreRow, policy: Policy, root: Path) -> tuple[float, float, float]:
    return paired_gain(root / str(mine.items), root / str(theirs.items), policy.draws)


def _points(gain: float, low: float, high: float) -> str:
    """A gain in percentage points with its 95 % interval."""
    return f"{100 * gain:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def _shown(value: float, unit: str) -> str:
    return f"{value:+.1%}" if unit == "share" else f"{value:.3g} {unit}".rstrip()
