"""Our scores beside the published ones: one section per row, protocol, method and size."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from caco_assets.downstream.score_rows import ScoreRow, read_rows
from caco_assets.evaluation.published import Published, comparable, elsewhere

METHODS = {
    "linear_probe": "linear probe",
    "linear_probe_eval_bn": "linear probe, batch norm in evaluation mode",
    "knn5": "5 nearest neighbours",
    "knn20": "20 nearest neighbours",
    "frozen_decoder": "U-Net on the frozen encoder",
    "fine_tune": "fine-tuned",
}
_ROLES = ("candidate", "baseline", "published")
_SETTING = ["row", "task", "protocol", "method", "size", "metric"]


@dataclass(frozen=True)
class Line:
    """One encoder in a section. Shares are in [0, 1]."""

    encoder: str
    role: str
    """`candidate`, `baseline` or `published`."""
    value: float | None
    """Mean over seeds; None if not measured."""
    low: float | None
    high: float | None
    """Ends of the 95 % interval; over several seeds from the lowest to the highest end. Published figures have none."""
    n: int
    seeds: int
    note: str
    items: tuple[str, ...] = ()
    """Per-item tables, one per seed."""

    @property
    def measured(self) -> bool:
        """Whether there is a figure."""
        return self.value is not None


@dataclass(frozen=True)
class Section:
    """Figures that may be compared with each other."""

    row: str
    task: str
    protocol: str
    method: str
    size: int
    metric: str
    lines: tuple[Line, ...]
    others: tuple[Line, ...] = ()
    """Published under other protocols: for context, not for comparison. Only in the first section of a row and metric."""

    @property
    def title(self) -> str:
        """For people."""
        metric = "" if self.metric == "accuracy" else f" · {self.metric.replace('_', ' ')}"
        return f"{self.row} · {self.protocol} · {METHODS.get(self.method, self.method)} · {self.size} px{metric}"

    def of(self, encoder: str) -> Line | None:
        """The line of an encoder."""
        return next((line for line in self.lines if line.encoder == encoder), None)

    @property
    def candidates(self) -> tuple[Line, ...]:
        """Our encoders."""
        return tuple(line for line in self.lines if line.role == "candidate")


@dataclass(frozen=True)
class Scorecard:
    """All sections, in the order of the scores."""

    sections: tuple[Section, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        return asdict(self)

    def find(self, row: str, protocol: str, method: str) -> Section | None:
        """The first section (smallest input first) with at least one measured candidate."""
        fitting = [s for s in self.sections if (s.row, s.protocol, s.method) == (row, protocol, method)]
        fitting = [section for section in fitting if any(line.measured for line in section.candidates)]
        return min(fitting, key=lambda section: section.size, default=None)


def scorecard(scores: Path, twins: Collection[str] = ()) -> Scorecard:
    """Read `scores.parquet` and add published figures to the rows of the protocol `paper`.

    Args:
        scores: the product.
        twins: rows measured on embedded twins, which get no published figures.
    """
    groups: dict[tuple[str | int, ...], list[ScoreRow]] = {}
    for row in read_rows(scores):
        groups.setdefault(tuple(getattr(row, name) for name in _SETTING), []).append(row)
    sections: list[Section] = []
    for rows in groups.values():
        section = _section(rows, rows[0].row not in twins)
        first = all((section.row, section.metric) != (before.row, before.metric) for before in sections)
        if first and section.row not in twins:
            others = tuple(_published_line(other) for other in elsewhere(section.task, section.metric))
            section = replace(section, others=others)
        sections.append(section)
    return Scorecard(tuple(sections))


def scorecard_text(card: Scorecard) -> str:
    """The scorecard as plain text for a terminal, figures in percent."""
    blocks = []
    for section in card.sections:
        width = max(len(line.encoder) for line in section.lines)
        lines = [section.title, *(f"  {text}" for text in _text_lines(section, width))]
        if section.others:
            lines.append("  published under other protocols, not to be compared:")
            lines += [f"    {percent(other.value):>5}  {other.encoder}: {other.note}" for other in section.others]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def percent(share: float | None) -> str:
    """One decimal, no sign: `66.2`."""
    return "" if share is None else f"{100 * share:.1f}"


def _text_lines(section: Section, width: int) -> Iterator[str]:
    for line in section.lines:
        name = f"{line.encoder:<{width}}"
        if line.value is None:
            yield f"{name}  not measured: {line.note}"
        elif line.low is None:
            yield f"{name}  {percent(line.value):>5}                 published: {line.note}"
        else:
            interval = f"[{percent(line.low):>5}, {percent(line.high):>5}]"
            yield f"{name}  {percent(line.value):>5}  {interval}  n={line.n}, seeds={line.seeds}"


def _section(rows: list[ScoreRow], with_published: bool) -> Section:
    first = rows[0]
    by_encoder: dict[str, list[ScoreRow]] = {}
    for row in rows:
        by_encoder.setdefault(row.encoder, []).append(row)
    lines = [_line(group) for group in by_encoder.values()]
    if with_published and first.protocol == "paper" and first.method in ("linear_probe", "frozen_decoder"):
        lines += [_published_line(other) for other in comparable(first.task, first.metric)]
    # within a role: the best first, unmeasured ones last
    lines.sort(key=lambda line: (_ROLES.index(line.role), -(line.value if line.value is not None else -1)))
    return Section(first.row, first.task, first.protocol, first.method, first.size, first.metric, tuple(lines))


def _published_line(other: Published) -> Line:
    note = "; ".join(part for part in (other.note, other.source) if part)
    return Line(other.name, "published", other.share, None, None, 0, 0, note)


def _line(rows: list[ScoreRow]) -> Line:
    """Rows of one encoder with different seeds."""
    first = rows[0]
    values = [row.value for row in rows if row.value is not None]
    if not values:
        return Line(first.encoder, first.role, None, None, None, 0, 0, first.note)
    return Line(
        encoder=first.encoder,
        role=first.role,
        value=sum(values) / len(values),
        low=min(row.ci_low for row in rows if row.ci_low is not None),
        high=max(row.ci_high for row in rows if row.ci_high is not None),
        n=first.n,
        seeds=len(values),
        note=first.note,
        items=tuple(row.items for row in rows if row.items is not None),
    )
