"""EuroSAT RGB: 64×64 jpg of ten land-cover classes, read from the authors' zip or an extracted folder (Helber et al. 2019)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from caco_assets.downstream.datasets.class_folders import cut_parts, decode_jpg, index_members
from caco_assets.downstream.datasets.classification import LabelledImages
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.members import open_store
from caco_assets.pretraining.encoder.preprocessing import EUROSAT_RGB

COUNTS = {
    "AnnualCrop": 3000,
    "Forest": 3000,
    "HerbaceousVegetation": 3000,
    "Highway": 2500,
    "Industrial": 2500,
    "Pasture": 2000,
    "PermanentCrop": 2500,
    "Residential": 3000,
    "River": 2500,
    "SeaLake": 3000,
}
"""Class → images of the published set, in colour as in 13 bands; 27 000 in all (Helber et al. 2019; its files are numbered so)."""
CLASSES = tuple(COUNTS)
SIDE = 64
# A 64×64 jpg of the published set has at most 12 kB.
_MAX_BYTES = 1 << 20


def read(path: Path, hashes: Hashes = FRESH) -> LabelledImages:
    """Check archive, classes and split lists; no pixel is decoded yet.

    Args:
        path: `EuroSAT.zip`, a folder that holds it, or a folder with the class folders. The lists (`split-train.txt`, …) lie
            beside the archive, or in the folder or beside it. Without lists all 27 000 images must exist, or as many as
            `subset.json` declares.
        hashes: cache of content hashes.

    Raises:
        UserError: see `open_store`, `index_members` and `cut_parts`.
    """
    store = open_store(path, max_bytes=_MAX_BYTES)
    members = index_members(store, CLASSES, ".jpg")
    parts, lists, note = cut_parts(store.root, members, ".jpg", COUNTS)
    return LabelledImages(
        task="eurosat",
        classes=CLASSES,
        pixel_format=EUROSAT_RGB,
        shape=(3, SIDE, SIDE),
        dtype="uint8",
        parts=parts,
        version=f"data-{store.version(hashes)}/splits-{lists}",
        note=note,
        decode=partial(decode_jpg, store, members, SIDE, "EuroSAT"),
    )
