"""Checkpoints: everything from which training goes on exactly, in one file that is written whole or not at all."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from caco_assets.errors import UserError


def save(path: Path, objective: nn.Module, optimiser: Optimizer, *, epoch: int, step: int, recipe: dict[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        path: replaced at once; a kill leaves the old file or the new one.
        objective: all weights and buffers: both encoders, the queue, the change state.
        optimiser: its momentum.
        epoch: number of finished epochs. Random numbers are functions of (seed, epoch), so there is no generator to save.
        step: number of finished steps; the learning rate is a function of it.
        recipe: what `load` compares; plain JSON-able values.
    """
    state = {"recipe": recipe, "epoch": epoch, "step": step}
    state |= {"objective": objective.state_dict(), "optimiser": optimiser.state_dict()}
    scratch = path.with_name(f".{path.name}.tmp")
    with scratch.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)


def load(path: Path, objective: nn.Module, optimiser: Optimizer, *, recipe: dict[str, Any]) -> tuple[int, int]:
    """Bring objective and optimiser to where the checkpoint left them.

    Returns:
        (finished epochs, finished steps); (0, 0) where there is no checkpoint.

    Raises:
        UserError: the file is damaged, or was made by another recipe; names the first difference.
    """
    if not path.exists():
        return 0, 0
    try:
        # plain containers and tensors only: a checkpoint cannot run code
        state = torch.load(path, map_location="cpu", weights_only=True)
        theirs = state["recipe"]
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not a readable checkpoint; delete it to start again from the beginning") from error
    for key in sorted({*recipe, *theirs}):
        if recipe.get(key) != theirs.get(key):
            raise UserError(
                f"{path}: made with {key}={theirs.get(key)}, this run has {key}={recipe.get(key)}; "
                "go on with the old value, or delete the file to start again"
            )
    objective.load_state_dict(state["objective"])
    optimiser.load_state_dict(state["optimiser"])
    return state["epoch"], state["step"]
