"""EuroSAT multi-spectral: 64×64 uint16 tif of 13 bands (level 1C), in the authors' layout `…/tif/<Class>/<Class>_<n>.tif`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.band_check import PLANTS, check_descriptions, check_order, spread
from caco_assets.downstream.datasets.class_folders import cut_parts, index_members
from caco_assets.downstream.datasets.classification import LabelledImages
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.members import Store, open_store
from caco_assets.downstream.datasets.readers.eurosat import CLASSES, COUNTS, SIDE
from caco_assets.downstream.datasets.tiff import read_tiff
from caco_assets.pretraining.encoder.preprocessing import PixelFormat

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
"""The order in the files: B8A is last."""
FORMAT = PixelFormat(BANDS, 1e-4)
SAMPLE = dict.fromkeys(CLASSES, 10)
"""Class → images of the small demonstration sample (EuroSAT100 in torchgeo)."""
# 64 · 64 · 13 · 2 bytes are 107 kB; tags and padding add little.
_MAX_BYTES = 1 << 20
_EACH = 3
"""Images of each class that are checked before anything is computed."""


def read(path: Path, hashes: Hashes = FRESH) -> LabelledImages:
    """Check archive, classes and split lists; no pixel is decoded yet.

    Args:
        path: `EuroSATallBands.zip`, a folder that holds it, or a folder with the class folders somewhere below. Lists made for
            the jpg are read with `.tif`. Without lists the split is stratified and seeded, and all 27 000 images must exist, or
            the sample of 100, or as many as `subset.json` declares.
        hashes: cache of content hashes.

    Raises:
        UserError: see `open_store`, `index_members` and `cut_parts`.
    """
    store = open_store(path, max_bytes=_MAX_BYTES)
    members = index_members(store, CLASSES, ".tif")
    _check_bands(store, members)
    parts, lists, note = cut_parts(store.root, members, ".tif", COUNTS, SAMPLE)
    return LabelledImages(
        task="eurosat_ms",
        classes=CLASSES,
        pixel_format=FORMAT,
        shape=(len(BANDS), SIDE, SIDE),
        dtype="uint16",
        parts=parts,
        version=f"data-{store.version(hashes)}/splits-{lists}",
        note=note,
        decode=partial(_decode, store, members),
    )


def _check_bands(store: Store, members: dict[str, str]) -> None:
    """Check the band order on a few images of each class; see `band_check`."""
    few = {name: spread(sorted(file for file in members if file.startswith(f"{name}_")), _EACH) for name in CLASSES}
    images = {name: [_decode(store, members, file) for file in files] for name, files in few.items()}
    everything = [image for each in images.values() for image in each]
    dark = tuple((band, "B10") for band in BANDS if band != "B10")
    check_order(store.root, everything, BANDS, dark, "all classes (B10, the cirrus band, is by far the darkest)")
    plants = [image for name in ("Forest", "Pasture", "PermanentCrop") for image in images[name]]
    check_order(store.root, plants, BANDS, (*PLANTS, ("B8A", "B09")), "forest, pasture and permanent crop")
    check_order(store.root, images["SeaLake"], BANDS, (("B02", "B04"),), "water")


def _decode(store: Store, members: dict[str, str], name: str) -> np.ndarray:
    """(13, 64, 64) uint16."""
    where = f"{store.root}: {members[name]}"

    def check(shape: tuple[int, ...], dtype: np.dtype) -> None:
        if shape not in ((SIDE, SIDE, len(BANDS)), (len(BANDS), SIDE, SIDE)) or dtype != np.uint16:
            found = "×".join(str(side) for side in shape)
            raise UserError(f"{where} is {found} {dtype}; EuroSAT has {SIDE}×{SIDE}×{len(BANDS)} uint16")

    tiff = read_tiff(store.read(members[name]), where, check=check, advice="fetch the data set again")
    check_descriptions(where, tiff.metadata, BANDS)
    return tiff.pixels.transpose(2, 0, 1) if tiff.pixels.shape[0] == SIDE else tiff.pixels
