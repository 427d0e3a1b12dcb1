"""Where the training of a network or decoder goes on after an interruption: its whole state after an epoch, in one file.

What a run that goes on ends with is what it would have ended with: weights, optimiser, schedule and all generators of chance are
in the file, and the epoch that was interrupted begins again.
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
"""Between two states: the most that a kill can cost, besides the epoch under way. Short training writes none at all."""


@dataclass
class EpochFile:
    """The last state that was written."""

    path: Path | None = None
    """None: nothing is kept, and training starts from its beginning."""
    """Outlet for progress."""
    seconds: float = SECONDS
    _written: float = field(default_factory=time.monotonic)

    def load(self) -> dict[str, Any] | None:
        """Plain containers and tensors only, so that it cannot run code; None where there is nothing to go on from."""
        if self.path is None or not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            logger.info(f"{self.path}: not readable ({type(error).__name__}); removed, training starts from its beginning")
            self.path.unlink()
            return None
        logger.info(f"goes on after epoch {state['epoch']}")
        return state

    def due(self) -> bool:
        """Whether the last state is old enough to write another."""
        return self.path is not None and time.monotonic() - self._written >= self.seconds

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state at once: a kill leaves the old one or the new one. It must hold `epoch`."""
        if self.path is None:
            return
        with replacing(self.path) as scratch:
            torch.save(state, scratch)
        self._written = time.monotonic()

    def clear(self) -> None:
        """Remove it: what was trained has been judged."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def chance_of(rng: np.random.Generator) -> str:
    """The state of numpy's generator, as text (its numbers have 128 bits)."""
    return json.dumps(rng.bit_generator.state)


def set_chance(rng: np.random.Generator, state: str) -> None:
    """The other way round."""
    rng.bit_generator.state = json.loads(state)


def torch_chance(device: torch.device) -> list[Tensor]:
    """States of torch's global generators: of the processor, and of the GPU in use."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_torch_chance(states: list[Tensor], device: torch.device) -> None:
    """The other way round."""
    torch.set_rng_state(states[0])
    if len(states) > 1 and device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
