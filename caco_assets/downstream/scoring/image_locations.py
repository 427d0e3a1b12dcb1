"""Locations of the test images of a task, from the coordinates in their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caco_assets.downstream.datasets.classification import LabelledImages, key, save_array
from caco_assets.downstream.datasets.geolocation import outlines
from caco_assets.downstream.datasets.segmentation import DenseImages
from caco_assets.downstream.scoring.score_task import ResolvedTask


@dataclass(frozen=True)
class ImageLocations:
    """The locations of the evaluation images of one task of the profile."""

    task_name: str
    """The key in `downstream.tasks`."""
    task: str
    images: int
    """Number of images (for pixel labels, scenes) in the scored parts."""
    outlines: np.ndarray
    """(N, 4, 2) float64: corners in degrees of those whose files carry coordinates."""
    twin: bool
    """An embedded twin: the known zones of the real data set do not apply."""
    absent: str = ""
    """Why there are no images."""


def locate_images(resolved: ResolvedTask, benchmarks: Path, cache: Path) -> ImageLocations:
    """Locations of the validation and test images of a row (some tasks measure `paper` on validation).

    Args:
        resolved: the task and its data.
        benchmarks: folder of the embedded twins.
        cache: folder for the locations; it can be deleted at any time.
    """
    data, twin = resolved.data, resolved.wanted.data is None
    if data is None:
        return ImageLocations(resolved.task_name, resolved.task.name, 0, np.zeros((0, 4, 2)), twin, resolved.reason)
    names = _scored_images(data)
    file = cache / "ground" / f"{key(resolved.task.name, data.version, *names)}.npy"
    if not file.exists():
        path = resolved.wanted.data or benchmarks / resolved.task.folder
        found = outlines(resolved.task.name, path, names)
        save_array(file, np.stack(list(found.values())) if found else np.zeros((0, 4, 2)))
    return ImageLocations(resolved.task_name, resolved.task.name, len(names), np.load(file), twin)


def _scored_images(data: LabelledImages | DenseImages) -> tuple[str, ...]:
    parts = [name for name in data.parts if name != "train"]
    if isinstance(data, DenseImages):
        # a DynamicEarthNet cube is one place, whatever its number of months
        return tuple(dict.fromkeys(tile.group or tile.scene for name in parts for tile in data.parts[name]))
    return tuple(dict.fromkeys(image for name in parts for image in data.parts[name].names))
