"""Checkpoints for exact resumption of training: atomically written files with checksums; the one before the last is kept."""

from __future__ import annotations

import logging
import os
import pickle
import time
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from caco_assets.core.atomic import replacing
from caco_assets.core.errors import UserError
from caco_assets.pretraining import distributed

logger = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "checkpoint.pt", "checkpoint.previous.pt", "best.pt"


# whatever a damaged file makes zipfile, pickle and torch raise
_UNREADABLE = (
    *(OSError, RuntimeError, EOFError, AssertionError, AttributeError, ValueError, KeyError, IndexError, TypeError),
    *(NotImplementedError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error),
)


@dataclass
class Checkpoints:
    """The last checkpoint of a training, from which it resumes, the one before, and the query encoder with the best probe score."""

    folder: Path
    """Contains `checkpoint.pt`, `checkpoint.previous.pt` and `best.pt`."""
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
    _last_is_damaged: bool = False

    def load(self) -> None:
        """Restore objective, optimizer and counters from the last checkpoint, if there is one; if damaged, from the one before.

        Raises:
            UserError: all are damaged, or made with another training config; names the first difference.
        """
        found = self._newest_sound()
        if found is None:
            return
        path, state = found
        self._last_is_damaged = path.name == PREVIOUS
        theirs, ours = state["recipe"], self.training_config
        for key in sorted({*ours, *theirs}):
            if ours.get(key) != theirs.get(key):
                raise UserError(
                    f"{path}: made with {key}={theirs.get(key)}, this run has {key}={ours.get(key)}; "
                    f"go on with the old value, or delete {LAST} and {PREVIOUS} there to start again"
                )
        try:
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            line = " ".join(str(error).split())[:160]
            raise UserError(f"{path}: of another architecture ({line}); delete it to start again") from error
        self.epoch, self.step, self.best = state["epoch"], state["step"], state["best"]

    def _newest_sound(self) -> tuple[Path, dict[str, Any]] | None:
        damage: UserError | None = None
        for path in (self.folder / LAST, self.folder / PREVIOUS):
            if not path.exists():
                continue
            try:
                state = read(path)
            except UserError as error:
                damage = damage or error
                continue
            if path.name == PREVIOUS and distributed.rank() == 0:
                what = f"{self.folder / LAST} is damaged" if damage else f"{self.folder / LAST} is missing"
                logger.warning(f"pretrain: {what}; resuming from the checkpoint before it, of step {state['step']}")
            return path, state
        if damage is not None:
            raise damage
        return None

    def due(self) -> bool:
        """Whether the time since the last checkpoint exceeds the interval."""
        return time.monotonic() - self._saved >= 60 * self.minutes

    def save(self, epoch: int, step: int) -> None:
        """Write the last checkpoint atomically and keep the one before: after a kill the old or the new file exists."""
        self.epoch, self.step = epoch, step
        state = {"recipe": self.training_config, "epoch": epoch, "step": step, "best": self.best}
        state |= {"objective": self.objective.state_dict(), "optimiser": self.optimizer.state_dict()}
        # a damaged one must not replace the sound one before it
        _write(self.folder / LAST, state, keep=None if self._last_is_damaged else self.folder / PREVIOUS)
        self._last_is_damaged = False
        self._saved = time.monotonic()

    def judge(self, epoch: int, step: int, probe: float, encoder: nn.Module) -> None:
        """Keep the query encoder after `epoch` if no earlier probe score was higher."""
        if self.best is None or probe > self.best:
            self.best = probe
            _write(self.folder / BEST, {"epoch": epoch, "step": step, "probe": probe, "encoder": encoder.state_dict()})


def read(path: Path) -> dict[str, Any]:
    """Contents of a checkpoint: plain containers and tensors only, so that it cannot run code.

    torch writes a zip archive with a CRC-32 of each part but does not compare them when it reads.

    Raises:
        UserError: it is damaged, or holds anything else.
    """
    try:
        with zipfile.ZipFile(path) as parts:
            if parts.testzip() is not None:
                raise zipfile.BadZipFile
        state = torch.load(path, map_location="cpu", weights_only=True)
        assert {"epoch", "step"} <= state.keys()  # noqa: S101 - handled below
    except _UNREADABLE as error:
        raise UserError(f"{path}: not a readable checkpoint; delete it to start again from the beginning") from error
    return state


def _write(path: Path, state: dict[str, Any], keep: Path | None = None) -> None:
    """Replace a file; `keep` is the new name of the old one."""
    if distributed.rank() > 0:
        return
    with replacing(path) as scratch:
        torch.save(state, scratch)
        if keep is not None and path.exists():
            keep.unlink(missing_ok=True)
            try:
                os.link(path, keep)
            except OSError:  # a file system without links
                path.replace(keep)
