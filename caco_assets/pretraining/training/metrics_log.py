"""Metrics of training: the sink protocol, the JSON-lines file that is always written, and the loss curve."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from caco_assets.core.atomic import write_atomic

METRICS = "metrics.jsonl"


class MetricsSink(Protocol):
    """Receives metrics during training, such as the JSON-lines file or the live curves of a tracking server."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """`values` of optimizer step `step` (from 1); called in step order, all values finite."""
        ...


class JsonLines:
    """`metrics.jsonl`: one JSON object per line, `step` first."""

    def __init__(self, path: Path, keep_until: int = 0, keep_epochs: int | None = None, *, write: bool = True) -> None:
        """Open for appending; lines written after the last checkpoint of an interrupted run are dropped.

        Args:
            path: of the file.
            keep_until: lines of later steps are dropped.
            keep_epochs: number of finished epochs: closing lines of later ones are dropped; None: only `keep_until` applies.
            write: whether to write; only one of several processes does, the others only read the kept lines.
        """
        lines = read_metrics(path) if path.exists() else []
        last = float("inf") if keep_epochs is None else keep_epochs - 1
        self.kept = [line for line in lines if line["step"] <= keep_until and not ("epoch_loss" in line and line["epoch"] > last)]
        """Lines kept from the existing file."""
        self._file = None
        if write:
            write_atomic(path, "".join(json.dumps(line) + "\n" for line in self.kept))
            # line-buffered, so that readers of the file see the curve grow
            self._file = path.open("a", buffering=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line."""
        if self._file is not None:
            self._file.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")

    def flush(self) -> None:
        """Write all lines to disk; called before a checkpoint that relies on them."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a truncated last line after a kill is left out."""
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def draw_loss_curve(path: Path, lines: list[dict[str, Any]]) -> None:
    """Draw the loss of each step and the mean of each epoch, and write a PNG to `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [line for line in lines if "loss" in line]
    epochs = [line for line in lines if "epoch_loss" in line]
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([line["step"] for line in steps], [line["loss"] for line in steps], color="0.75", label="step")
    axes.plot([line["step"] for line in epochs], [line["epoch_loss"] for line in epochs], "o-", ms=3, label="mean of the epoch")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (sum over spaces)")
    axes.legend()
    figure.savefig(path, dpi=100, metadata={"Software": None})
