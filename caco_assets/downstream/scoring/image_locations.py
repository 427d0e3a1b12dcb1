"""Where the images that an encoder is judged on lie, and by what that is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caco_assets.downstream.datasets.classification import LabelledImages, key, save_array
from caco_assets.downstream.datasets.geolocation import outlines
from caco_assets.downstream.datasets.segmentation import DenseImages
from caco_assets.downstream.scoring.score_task import Assignment


@dataclass(frozen=True)
class Ground:
    """The places of the images that one row of the profile is judged on."""

    row: str
    task: str
    images: int
    """Images, or scenes of a task with a class for each pixel, in the parts that figures are taken from."""
    outlines: np.ndarray
    """(N, 4, 2) float64: corners in degrees of those whose files say where they lie."""
    twin: bool
    """An embedded twin: no known zone of the real data set says anything about it."""
    absent: str = ""
    """Why there are no images at all."""


def ground_of(assignment: Assignment, benchmarks: Path, cache: Path) -> Ground:
    """Places of the validation and test images of a row (the protocol `paper` of some tasks is measured on validation).

    Args:
        assignment: the row.
        benchmarks: folder of the embedded twins.
        cache: folder for what is found; deleting it only costs time.
    """
    data, twin = assignment.data, assignment.wanted.data is None
    if data is None:
        return Ground(assignment.row, assignment.task.name, 0, np.zeros((0, 4, 2)), twin, assignment.reason)
    names = _judged(data)
    file = cache / "ground" / f"{key(assignment.task.name, data.version, *names)}.npy"
    if not file.exists():
        path = assignment.wanted.data or benchmarks / assignment.task.folder
        found = outlines(assignment.task.name, path, names)
        save_array(file, np.stack(list(found.values())) if found else np.zeros((0, 4, 2)))
    return Ground(assignment.row, assignment.task.name, len(names), np.load(file), twin)


def _judged(data: LabelledImages | DenseImages) -> tuple[str, ...]:
    parts = [name for name in data.parts if name != "train"]
    if isinstance(data, DenseImages):
        # a cube of DynamicEarthNet is one place, however many months it has
        return tuple(dict.fromkeys(tile.group or tile.scene for name in parts for tile in data.parts[name]))
    return tuple(dict.fromkeys(image for name in parts for image in data.parts[name].names))
