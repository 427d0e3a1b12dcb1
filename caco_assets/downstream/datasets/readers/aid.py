"""AID: 600×600 jpg of aerial scenes in thirty classes (Xia et al. 2017), read from the authors' zip or an extracted folder.

There are no published lists: the authors draw 20 % or 50 % of every class for training, the rest is the test part, and publish the
mean over several draws. Here there are five draws, seeded by the class and the number of the draw; a tenth of the training images
validates
(`clean` selects on it; `paper` trains on it too). torchgeo has no class for AID.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.class_folders import decode_jpg, index_members
from caco_assets.downstream.datasets.classification import LabelledImages, Part
from caco_assets.downstream.datasets.completeness import check_counts, read_subset
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.members import open_store
from caco_assets.downstream.datasets.splits import list_sha256
from caco_assets.pretraining.encoder.preprocessing import EUROSAT_RGB

COUNTS = {
    "Airport": 360,
    "BareLand": 310,
    "BaseballField": 220,
    "Beach": 400,
    "Bridge": 360,
    "Center": 260,
    "Church": 240,
    "Commercial": 350,
    "DenseResidential": 410,
    "Desert": 300,
    "Farmland": 370,
    "Forest": 250,
    "Industrial": 390,
    "Meadow": 280,
    "MediumResidential": 290,
    "Mountain": 340,
    "Park": 350,
    "Parking": 390,
    "Playground": 370,
    "Pond": 420,
    "Port": 380,
    "RailwayStation": 260,
    "Resort": 290,
    "River": 410,
    "School": 300,
    "SparseResidential": 300,
    "Square": 330,
    "Stadium": 290,
    "StorageTanks": 360,
    "Viaduct": 420,
}
"""Class → images of the published set; 10 000 in all."""
SIDE = 600
SPLITS, SPLITS_OF_PART = 5, 3
"""Draws of the complete set, and of a declared subset, whose scores are not compared with published ones."""
_VALIDATION = 0.1
# A jpg of the published set has about 100 to 400 kB.
_MAX_BYTES = 8 << 20


def read(path: Path, share: float, hashes: Hashes = FRESH) -> LabelledImages:
    """Check archive, classes and counts; no pixel is decoded yet.

    The images have no radiometric scale: 255 counts as reflectance 0.275, as in EuroSAT RGB.

    Args:
        path: `AID.zip`, a folder that holds it, or a folder with `AID/<Class>/<class>_<n>.jpg` somewhere below. A folder with
        `subset.json` holds the declared images instead of all thirty classes.
        share: of every class, for training: 0.2 or 0.5.
        hashes: cache of content hashes.

    Raises:
        UserError: see `open_store` and `index_members`; or classes or images are missing (`IncompleteError`).
    """
    store = open_store(path, max_bytes=_MAX_BYTES)
    declared = read_subset(store.root if store.root.is_dir() else store.root.parent)
    wanted = (declared.counts if declared else {}) or COUNTS
    if unknown := [name for name in wanted if name not in COUNTS]:
        raise UserError(f"{store.root}: subset.json names {', '.join(unknown)}; AID's classes are {', '.join(COUNTS)}")
    classes = tuple(name for name in COUNTS if name in wanted)
    members = index_members(store, classes, ".jpg", stem=str.lower)
    labels = {name: classes.index(PurePosixPath(member).parent.name) for name, member in members.items()}
    found = {classes[label]: count for label, count in Counter(labels.values()).items()}
    if declared and not declared.counts:
        found, wanted = {"all": len(labels)}, {"all": declared.images}
    check_counts(store.root, found, wanted)
    draws = SPLITS_OF_PART if declared else SPLITS
    folds = tuple(split(labels, share, number) for number in range(draws))
    digest = list_sha256(tuple(list_sha256(part.names) for parts in folds for part in parts.values()))
    note = f"{share:.0%} of every class for training (a tenth of it for validation), drawn {draws} times by seed; lists {digest}"
    if declared:
        note += f"; {len(classes)} of {len(COUNTS)} classes: {declared.note}"
    images = f"data-{store.version(hashes)}"
    return LabelledImages(
        task=f"aid_{share * 100:.0f}",
        classes=classes,
        pixel_format=EUROSAT_RGB,
        shape=(3, SIDE, SIDE),
        dtype="uint8",
        parts=folds[0],
        version=f"{images}/splits-{digest}",
        note=note,
        decode=partial(decode_jpg, store, members, SIDE, "AID"),
        folds=folds,
        images_version=images,
    )


def read_20(path: Path, hashes: Hashes = FRESH) -> LabelledImages:
    """AID with 20 % for training; see `read`."""
    return read(path, 0.2, hashes)


def read_50(path: Path, hashes: Hashes = FRESH) -> LabelledImages:
    """AID with 50 % for training; see `read`."""
    return read(path, 0.5, hashes)


def split(labels: dict[str, int], share: float, number: int) -> dict[str, Part]:
    """The draw with a number: `train`, `val`, `test`, each sorted by name.

    In every class: `share` of the images, at least two, are for training, and of these a tenth, at least one, is `val`.

    Args:
        labels: file name → class.
        share: for training.
        number: of the draw.
    """
    chosen: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label in sorted(set(labels.values())):
        names = np.array(sorted(name for name, own in labels.items() if own == label))
        order = np.random.default_rng([number, label]).permutation(len(names))
        training = max(2, round(share * len(names)))
        validation = max(1, round(_VALIDATION * training))
        bounds = (validation, training)
        for part, index in zip(("val", "train", "test"), np.split(order, bounds), strict=True):
            chosen[part] += names[index].tolist()
    return {
        part: Part(tuple(sorted(names)), np.array([labels[name] for name in sorted(names)], np.int64))
        for part, names in chosen.items()
    }
