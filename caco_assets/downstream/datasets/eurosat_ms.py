"""EuroSAT multi-spectral: 64×64 uint16 tif of 13 bands (level 1C), in the authors' layout `…/tif/<Class>/<Class>_<n>.tif`."""

from __future__ import annotations

import struct
import zlib
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np

from caco_assets.downstream.datasets.eurosat import CLASSES, SIDE, lists_folder
from caco_assets.downstream.datasets.hashes import FRESH, Hashes
from caco_assets.downstream.datasets.labelled import LabelledImages
from caco_assets.downstream.datasets.layout import cut_parts, index_members
from caco_assets.downstream.datasets.store import Store, open_store
from caco_assets.errors import UserError
from caco_assets.pretraining.pixels import PixelFormat

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
"""The order in the files: B8A stands last."""
FORMAT = PixelFormat(BANDS, 1e-4)
# 64 · 64 · 13 · 2 bytes are 107 kB; tags and padding add little.
_MAX_BYTES = 1 << 20


def read(path: Path, hashes: Hashes = FRESH) -> LabelledImages:
    """Check archive, classes and split lists; no pixel is decoded yet.

    Args:
        path: `EuroSATallBands.zip`, a folder that holds it, or a folder with the class folders somewhere below. Lists made for
            the jpg are read with `.tif`; without lists the split is stratified and seeded.
        hashes: remembers what has been hashed before.

    Raises:
        UserError: see `open_store`, `index_members` and `read_lists`.
    """
    store = open_store(path, max_bytes=_MAX_BYTES)
    members = index_members(store, CLASSES, ".tif")
    parts, lists, note = cut_parts(members, CLASSES, lists_folder(store.root), ".tif")
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


def _decode(store: Store, members: dict[str, str], name: str) -> np.ndarray:
    """(13, 64, 64) uint16."""
    import tifffile

    data = store.read(members[name])
    try:
        image = tifffile.imread(BytesIO(data))
    except (tifffile.TiffFileError, OSError, ValueError, KeyError, struct.error, zlib.error) as error:
        raise UserError(f"{store.root}: {members[name]} is damaged ({error}); fetch the data set again") from error
    if image.shape == (SIDE, SIDE, len(BANDS)):
        image = image.transpose(2, 0, 1)
    if image.shape != (len(BANDS), SIDE, SIDE) or image.dtype != np.uint16:
        found = "×".join(str(side) for side in image.shape)
        raise UserError(f"{store.root}: {members[name]} is {found} {image.dtype}; EuroSAT has {SIDE}×{SIDE}×{len(BANDS)} uint16")
    return image
