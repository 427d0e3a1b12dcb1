"""BigEarthNet-S2, second version (reBEN, Clasen et al. 2024): `BigEarthNet-S2/<tile>/<patch>/<patch>_<band>.tif`, 19 labels.

Labels, split, snow and cloud come from `metadata.parquet`; `Reference_Maps/` (the labels' pixels) are not needed for evaluation.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.core.parquet import read_rows
from caco_assets.downstream.datasets.classification import LabelledImages, Part
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.members import DataAbsentError
from caco_assets.downstream.datasets.published_splits import source_of
from caco_assets.downstream.datasets.readers.bigearthnet import version_of
from caco_assets.downstream.datasets.readers.bigearthnet_labels import CLASSES, of_19
from caco_assets.downstream.datasets.readers.bigearthnet_pixels import BANDS, FORMAT, SIDE, check_bands, read_patch

IMAGES, METADATA = "BigEarthNet-S2", "metadata.parquet"
_PARTS = {"train": "train", "validation": "val", "test": "test"}
_COLUMNS = ("patch_id", "labels", "split")
_FLAGS = ("contains_seasonal_snow", "contains_cloud_or_shadow")


def read(path: Path, hashes: Hashes = FRESH) -> LabelledImages:
    """Check metadata and folders; no pixel is decoded yet.

    Args:
        path: the folder that holds `BigEarthNet-S2/` and `metadata.parquet`.
        hashes: cache of content hashes.

    Raises:
        UserError: no data (`DataAbsentError`), not extracted, a patch of the table that is missing, an unknown label.
    """
    if not path.exists():
        raise DataAbsentError(f"data={path}: there is nothing there")
    root = path / IMAGES
    for needed in (root, path / METADATA):
        if not needed.exists():
            raise UserError(f"data={path}: {needed.name} is missing; extract the archives here (cat parts together, tar xzf)")
    rows = read_rows(path / METADATA, (*_COLUMNS, *_FLAGS))
    if missing := [name for name in _COLUMNS if rows and name not in rows[0]]:
        raise UserError(f"{path / METADATA}: has no column {', '.join(missing)}; fetch it again")
    for row in rows:
        _check(path / METADATA, row)
    flagged = [any(row.get(name) for name in _FLAGS) for row in rows]
    kept = sorted((row for row, flag in zip(rows, flagged, strict=True) if not flag), key=lambda row: row["patch_id"])
    _check_folders(root, [row["patch_id"] for row in kept])
    parts = {}
    for name, part in _PARTS.items():
        members = [row for row in kept if row["split"] == name]
        if not members:
            raise UserError(f"{path / METADATA}: no patch of the split {name}; fetch it again")
        labels = np.stack([of_19(row["labels"], str(path / METADATA)) for row in members])
        parts[part] = Part(tuple(row["patch_id"] for row in members), labels)
    source = source_of("bigearthnet_v2", {"metadata": path / METADATA})
    note = f"{source.replace('split lists', 'split of the metadata')}; {sum(flagged)} patches with snow, cloud or shadow dropped"
    check_bands(root, partial(_decode, root, BANDS), parts)
    return LabelledImages(
        task="bigearthnet_v2",
        classes=CLASSES,
        pixel_format=FORMAT,
        shape=(len(BANDS), SIDE, SIDE),
        dtype="uint16",
        parts=parts,
        version=version_of(root, parts, hashes),
        note=note,
        decode=partial(_decode, root, BANDS),
        decode_bands=partial(_decode, root),
    )


def tile_of(patch: str) -> str:
    """The tile's folder: the patch's name without its row and column."""
    return patch.rsplit("_", 2)[0]


def _check(file: Path, row: dict[str, Any]) -> None:
    patch, labels = row["patch_id"], row["labels"]
    if not isinstance(patch, str) or not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UserError(f"{file}: the patch {patch!r} has the labels {str(labels)[:80]}; a name and a list of names belong there")


def _check_folders(root: Path, patches: list[str]) -> None:
    """Check that every patch has its folder, with one listing per tile."""
    there: dict[str, set[str]] = {}
    for patch in patches:
        tile = tile_of(patch)
        if tile not in there:
            folder = root / tile
            there[tile] = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        if patch not in there[tile]:
            raise UserError(f"{root}: the metadata lists {patch}, which is not there; extract the whole archive")


def _decode(root: Path, bands: tuple[str, ...], name: str) -> np.ndarray:
    return read_patch(root / tile_of(name) / name, bands)
