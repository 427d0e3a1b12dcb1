"""Published figures, each a row of `published.yaml` with its source, protocol and note."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

_TABLE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Published:
    """One published figure."""

    method: str
    backbone: str | None
    """timm name, or None if the source does not name it."""
    task: str
    metric: str
    value: float
    """In percent, as printed."""
    protocol: Literal["paper", "other"]
    """`paper`: comparable with our rows of the protocol `paper`; `other`: not comparable with ours."""
    group: Literal["table", "ladder", "change_estimate", "simclr", "elsewhere", "horizon"]
    source: str
    note: str = ""

    @property
    def share(self) -> float:
        """The figure in [0, 1], like our scores."""
        return self.value / 100

    @property
    def name(self) -> str:
        """Method and backbone."""
        return f"{self.method} ({self.backbone})" if self.backbone else self.method


@cache
def published() -> tuple[Published, ...]:
    """Every row of the table, with the source written out."""
    table = yaml.safe_load(_TABLE.read_text())
    return tuple(Published(**{**row, "source": table["sources"][row["source"]]}) for row in table["rows"])


def comparable(task: str, metric: str) -> list[Published]:
    """The main table's rows comparable with our `paper` rows of a task."""
    return [row for row in published() if (row.task, row.metric, row.protocol, row.group) == (task, metric, "paper", "table")]


def elsewhere(task: str, metric: str) -> list[Published]:
    """Figures of other protocols, splits and decoders: shown with their differences, not for direct comparison."""
    return [row for row in published() if (row.task, row.metric, row.protocol) == (task, metric, "other")]
