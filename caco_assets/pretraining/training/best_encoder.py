"""Keeps the encoder with the highest probe accuracy during training, beside that of the last epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.training.checkpoint import BEST, read

FOLDER = "best"


def keep_best(folder: Path, encoder: Encoder, training_config: dict[str, Any], data: dict[str, Any]) -> None:
    """Convert `best.pt` of a training, if there is one, into the encoder folder `best/`; the product stays the last epoch's.

    Args:
        folder: training folder.
        encoder: encoder of the last epoch; provides architecture and preprocessing.
        training_config: see `Encoder.save`.
        data: see `Encoder.save`; epoch and probe are added.
    """
    if not (folder / BEST).exists():
        return
    state = read(folder / BEST)
    best = Encoder.random(encoder.architecture, encoder.preprocessing, seed=0)
    best.backbone.load_state_dict(state["encoder"])
    best.save(folder / FOLDER, training_config, {**data, "epoch": state["epoch"], "probe": state["probe"]})
    (folder / BEST).unlink()
