"""Locates the step and the batch of a loss or gradient that is not finite."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.pretraining.loading.sampler import Sampler
from caco_assets.pretraining.pack.format import PERIODS

BAD_BATCH = "bad_batch.json"


@dataclass(frozen=True)
class BadStep:
    """The first step with a metric that is not finite."""

    epoch: int
    """From 0, as in the loader."""
    step: int
    """Over the whole training, from 1, as in `metrics.jsonl`."""
    step_in_epoch: int
    """From 0, as in the loader."""
    figure: str
    """`loss` or `grad_norm`."""
    value: str
    slots: list[int]
    """2 · place + period of each sample of the batch, over all processes."""


class Diverged(UserError):  # noqa: N818 - named after the condition
    """Training cannot continue: a metric is not finite."""

    def __init__(self, bad: BadStep) -> None:
        shown = ", ".join(str(slot) for slot in bad.slots[:8])
        super().__init__(
            f"{bad.figure}={bad.value} at epoch {bad.epoch + 1}, step {bad.step} (slots {shown}, …): training has diverged; lower "
            "pretraining.learning_rate or raise pretraining.temperature; the last checkpoint is kept"
        )
        self.bad = bad


def write_bad_batch(folder: Path, bad: BadStep, sampler: Sampler, seed: int) -> Path:
    """Write which places and dates the step used; from (seed, epoch, step) the sampler draws the same views again.

    Args:
        folder: receives `bad_batch.json`.
        bad: the step.
        sampler: sampler of the step.
        seed: of the training.
    """
    drawn = sampler.drawn(bad.epoch, bad.step_in_epoch)
    samples = [
        {"slot": slot, "location_id": sampler.pack.location_id[slot // PERIODS], "dates": dates}
        for slot, dates in zip(drawn.slots.tolist(), drawn.dates.tolist(), strict=True)
    ]
    fields = {name: value for name, value in asdict(bad).items() if name != "slots"}
    path = folder / BAD_BATCH
    write_atomic(path, json.dumps({"seed": seed, **fields, "samples": samples}, indent=1) + "\n")
    return path
