"""Writes the probe set: a few labelled images of one task for the probe during training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.classification import LabelledImages
from caco_assets.pretraining.training.online_probe import TRAIN, VALIDATION, ProbeSet
from caco_assets.settings import Settings

TRAIN_IMAGES, VALIDATION_IMAGES = 240, 120
"""Enough to follow the features and to detect a collapse; `scores` evaluates the finished encoder on all images."""
_PARTS = {"train": (TRAIN, TRAIN_IMAGES), "val": (VALIDATION, VALIDATION_IMAGES)}
"""Only scores use the test part."""


def data_of_row(settings: Settings, row: str | None) -> LabelledImages:
    """The checked data of the row of `downstream.tasks` for the training probe.

    Raises:
        UserError: no row is named, its data is absent or damaged, it lacks a band of the encoder, or its labels are not classes.
    """
    from caco_assets.downstream.scoring.score_task import resolve_tasks

    if row is None:
        raise UserError(f"profile {settings.profile}: pretraining.probe_task names no row of downstream.tasks to probe training on")
    alone = settings.downstream.model_copy(update={"tasks": {row: settings.downstream.tasks[row]}})
    (found,) = resolve_tasks(settings.model_copy(update={"downstream": alone}))
    if found.data is None:
        raise UserError(f"pretraining.probe_task={row}: {found.reason}; name another row, or none")
    if not isinstance(found.data, LabelledImages) or found.data.parts["train"].labels.ndim != 1:
        raise UserError(f"pretraining.probe_task={row}: {found.task.title} has no one class per image; name another row, or none")
    found.data.pixel_format.select(settings.pretraining.bands)
    return found.data


def write_probe_set(path: Path, data: LabelledImages, seed: int) -> dict[str, Any]:
    """Write a seeded, class-balanced choice of the training and the validation part.

    Args:
        path: of the file to write.
        data: a checked data set; its test part is not read.
        seed: of the choice.

    Returns:
        Counts, and the data they come from.

    Raises:
        UserError: an image is damaged; the message names it.
    """
    rng = np.random.default_rng(seed)
    images, labels, parts = [], [], []
    for name, (number, limit) in _PARTS.items():
        part = data.parts[name].take(balanced(data.parts[name].labels, limit, rng))
        images += [data.decode(image) for image in part.names]
        labels.append(part.labels)
        parts.append(np.full(len(part), number, np.uint8))
    source = f"{data.task} {data.version}"
    probe_set = ProbeSet(np.stack(images), np.concatenate(labels), np.concatenate(parts), data.pixel_format, source)
    probe_set.write(path)
    counts = {"train": len(labels[0]), "validation": len(labels[1]), "classes": len(np.unique(probe_set.labels))}
    return {"task": data.task, **counts, "bands": list(data.pixel_format.bands), "data_version": data.version}


def balanced(labels: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of at most `limit` images, sorted; drawn from shuffled classes in turn, so that classes are balanced."""
    order = rng.permutation(len(labels))
    place = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = np.arange(len(members))
    return np.sort(np.lexsort((labels, place))[:limit])
