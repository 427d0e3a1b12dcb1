"""Registry of the objectives, one file each. A new objective is a new file and a line here."""

from __future__ import annotations

import difflib

import torch
from torch import nn

from caco_assets.core.errors import UserError
from caco_assets.pretraining.objectives.base import EpochReport, Objective, StepOutput
from caco_assets.pretraining.objectives.caco import Caco
from caco_assets.pretraining.objectives.config import FIDELITY, IMPROVED, REFERENCE, ObjectiveConfig, Switches
from caco_assets.pretraining.objectives.gssl import Gssl
from caco_assets.pretraining.objectives.moco_v2 import MocoV2
from caco_assets.pretraining.objectives.moco_v2_tp import MocoV2TemporalPositives
from caco_assets.pretraining.objectives.seco import Seco
from caco_assets.pretraining.objectives.simclr import SimClr
from caco_assets.pretraining.objectives.simclr_caco import SimClrCaco
from caco_assets.pretraining.objectives.simclr_seco import SimClrSeco
from caco_assets.pretraining.objectives.teco import Teco

__all__ = [
    "FIDELITY", "IMPROVED", "OBJECTIVES", "REFERENCE", "EpochReport", "Objective", "ObjectiveConfig", "StepOutput", "Switches",
    "build", "objective_class",
]  # fmt: skip

OBJECTIVES: dict[str, type[Objective]] = {
    "moco_v2": MocoV2,
    "moco_v2_tp": MocoV2TemporalPositives,
    "gssl": Gssl,
    "seco": Seco,
    "teco": Teco,
    "caco": Caco,
    "simclr": SimClr,
    "simclr_seco": SimClrSeco,
    "simclr_caco": SimClrCaco,
}


def objective_class(name: str) -> type[Objective]:
    """The class of the objective with that name.

    Raises:
        UserError: unknown name.
    """
    if name not in OBJECTIVES:
        close = difflib.get_close_matches(name, OBJECTIVES, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"pretraining.objective={name}: there is no such objective; {hint}choose one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def build(name: str, config: ObjectiveConfig, backbone: nn.Module, *, features: int, seed: int) -> Objective:
    """Make an objective around a backbone.

    Args:
        name: a key of `OBJECTIVES`.
        config: sizes, rates and switches.
        backbone: maps images (N, bands, H, W) to vectors (N, `features`); it is trained in place.
        features: width of the backbone's output.
        seed: of the heads and of the queue's first columns.

    Raises:
        UserError: unknown objective.
    """
    make = objective_class(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        objective = make(config, backbone, features)
    return objective.to(memory_format=torch.channels_last) if config.switches.channels_last else objective  # pyright: ignore[reportCallIssue] - missing in the stubs
