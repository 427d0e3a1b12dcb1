"""Checkpoints for exact resumption of training, each an atomically written file."""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from caco_assets.core.atomic import replacing
from caco_assets.core.errors import UserError
from caco_assets.pretraining import distributed

LAST, BEST = "checkpoint.pt", "best.pt"


@dataclass
class Checkpoints:
    """The last checkpoint of a training, from which it resumes, and the query encoder with the best probe score."""

    folder: Path
    """Contains `checkpoint.pt` and `best.pt`."""
    objective: nn.Module
    """All weights and buffers: both encoders, the queue, the change state."""
    optimizer: Optimizer
    """Its momentum buffers are saved."""
    training_config: dict[str, Any]
    """Compared by `load`; plain JSON-able values."""
    minutes: float
    """Minutes between checkpoints within an epoch."""
    epoch: int = 0
    """Number of finished epochs. Random numbers are functions of (seed, epoch, step), so no generator state is saved."""
    step: int = 0
    """Number of finished steps over all epochs; determines the learning rate."""
    best: float | None = None
    """The highest probe score so far."""
    _saved: float = field(default_factory=time.monotonic)

    def load(self) -> None:
        """Restore objective, optimizer and counters from the last checkpoint, if there is one.

        Raises:
            UserError: the file is damaged, or was made with another training config; names the first difference.
        """
        path = self.folder / LAST
        if not path.exists():
            return
        state = read(path)
        theirs, ours = state["recipe"], self.training_config
        for key in sorted({*ours, *theirs}):
            if ours.get(key) != theirs.get(key):
                raise UserError(
                    f"{path}: made with {key}={theirs.get(key)}, this run has {key}={ours.get(key)}; "
                    "go on with the old value, or delete the file to start again"
                )
        try:
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            line = " ".join(str(error).split())[:160]
            raise UserError(f"{path}: of another architecture ({line}); delete the file to start again") from error
        self.epoch, self.step, self.best = state["epoch"], state["step"], state["best"]

    def due(self) -> bool:
        """Whether the time since the last checkpoint exceeds the interval."""
        return time.monotonic() - self._saved >= 60 * self.minutes

    def save(self, epoch: int, step: int) -> None:
        """Replace the last checkpoint atomically: after a kill the old or the new file exists."""
        self.epoch, self.step = epoch, step
        state = {"recipe": self.training_config, "epoch": epoch, "step": step, "best": self.best}
        _write(self.folder / LAST, state | {"objective": self.objective.state_dict(), "optimiser": self.optimizer.state_dict()})
        self._saved = time.monotonic()

    def judge(self, epoch: int, step: int, probe: float, encoder: nn.Module) -> None:
        """Keep the query encoder after `epoch` if no earlier probe score was higher."""
        if self.best is None or probe > self.best:
            self.best = probe
            _write(self.folder / BEST, {"epoch": epoch, "step": step, "probe": probe, "encoder": encoder.state_dict()})


def read(path: Path) -> dict[str, Any]:
    """Contents of a checkpoint: plain containers and tensors only, so that it cannot run code.

    Raises:
        UserError: it is damaged, or holds anything else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        assert {"epoch", "step"} <= state.keys()  # noqa: S101 - handled below
    except (OSError, RuntimeError, EOFError, AssertionError, AttributeError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not a readable checkpoint; delete it to start again from the beginning") from error
    return state


def _write(path: Path, state: dict[str, Any]) -> None:
    if distributed.rank() > 0:
        return
    with replacing(path) as scratch:
        torch.save(state, scratch)
