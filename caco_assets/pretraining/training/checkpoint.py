"""Checkpoints: everything from which training goes on exactly, in one file that is written whole or not at all."""

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
    """The last checkpoint of a training, from which it goes on, and the query encoder that the probe liked best."""

    folder: Path
    """Gets `checkpoint.pt` and `best.pt`."""
    objective: nn.Module
    """All weights and buffers: both encoders, the queue, the change state."""
    optimizer: Optimizer
    """Its momentum."""
    training_config: dict[str, Any]
    """What `load` compares; plain JSON-able values."""
    minutes: float
    """Between checkpoints within an epoch."""
    epoch: int = 0
    """Number of finished epochs. Random numbers are functions of (seed, epoch, step), so there is no generator to save."""
    step: int = 0
    """Number of finished steps, over all epochs; the learning rate is a function of it."""
    best: float | None = None
    """The highest probe so far."""
    _saved: float = field(default_factory=time.monotonic)

    def load(self) -> None:
        """Bring objective, optimizer and counters to where the last checkpoint left them, if there is one.

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
        """Whether the last one is so old that a kill would cost too much."""
        return time.monotonic() - self._saved >= 60 * self.minutes

    def save(self, epoch: int, step: int) -> None:
        """Replace the last checkpoint at once: a kill leaves the old file or the new one."""
        self.epoch, self.step = epoch, step
        state = {"recipe": self.training_config, "epoch": epoch, "step": step, "best": self.best}
        _write(self.folder / LAST, state | {"objective": self.objective.state_dict(), "optimiser": self.optimizer.state_dict()})
        self._saved = time.monotonic()

    def judge(self, epoch: int, step: int, probe: float, encoder: nn.Module) -> None:
        """Keep the query encoder after `epoch` if no probe was higher."""
        if self.best is None or probe > self.best:
            self.best = probe
            _write(self.folder / BEST, {"epoch": epoch, "step": step, "probe": probe, "encoder": encoder.state_dict()})


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint holds: plain containers and tensors only, so that it cannot run code.

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
