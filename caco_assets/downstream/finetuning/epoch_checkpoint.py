"""Checkpoints of fine-tuning: the complete training state after an epoch in one file, from which an interrupted training resumes.

A resumed training gives the same result as an uninterrupted one: weights, optimizer, schedule and the states of all random
generators are in the file, and the interrupted epoch is repeated.
"""

from __future__ import annotations

import json
import logging
import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caco_assets.core.atomic import replacing

logger = logging.getLogger(__name__)


SECONDS = 60.0
"""Time between two states: the most that a kill can lose, besides the current epoch. Short trainings write none."""


@dataclass
class EpochCheckpoint:
    """The last state that was written."""

    path: Path | None = None
    """None: nothing is saved, and training starts from the beginning."""
    seconds: float = SECONDS
    _written: float = field(default_factory=time.monotonic)

    def load(self) -> dict[str, Any] | None:
        """Plain containers and tensors only, so that it cannot run code; None if there is no state to resume from."""
        if self.path is None or not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            logger.info(f"{self.path}: not readable ({type(error).__name__}); removed, training starts from the beginning")
            self.path.unlink()
            return None
        logger.info(f"resumes after epoch {state['epoch']}")
        return state

    def due(self) -> bool:
        """Whether the last state is old enough to write another."""
        return self.path is not None and time.monotonic() - self._written >= self.seconds

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state atomically: a kill leaves the old one or the new one. It must hold `epoch`."""
        if self.path is None:
            return
        with replacing(self.path) as scratch:
            torch.save(state, scratch)
        self._written = time.monotonic()

    def clear(self) -> None:
        """Remove it once the trained network has been scored."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def rng_state(rng: np.random.Generator) -> str:
    """The state of numpy's generator, as text (its numbers have 128 bits)."""
    return json.dumps(rng.bit_generator.state)


def set_rng_state(rng: np.random.Generator, state: str) -> None:
    """Restore a saved state."""
    rng.bit_generator.state = json.loads(state)


def torch_rng_states(device: torch.device) -> list[Tensor]:
    """States of torch's global generators: of the CPU, and of the GPU in use."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_torch_rng_states(states: list[Tensor], device: torch.device) -> None:
    """Restore a saved state."""
    torch.set_rng_state(states[0])
    if len(states) > 1 and device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
