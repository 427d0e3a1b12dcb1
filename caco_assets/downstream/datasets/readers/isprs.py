"""ISPRS Potsdam and Vaihingen: land cover of two German towns at 5 and 9 cm, masks in six colours, tests on the contest's areas.

torchgeo has classes for both; they treat unknown colours as clutter, silently skip missing areas, and import slowly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.archives import Archives, open_archives
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.image_decoding import IGNORE, expect, read_tif, side_of
from caco_assets.downstream.datasets.published_splits import published
from caco_assets.downstream.datasets.segmentation import DenseImages
from caco_assets.downstream.datasets.tiles import Scene
from caco_assets.pretraining.encoder.preprocessing import RGB, PixelFormat

CLASSES = ("impervious surfaces", "building", "low vegetation", "tree", "car", "clutter")
SCORED = (0, 1, 2, 3, 4)
"""The contest and published results leave clutter out of the mean."""
COLORS = {
    (255, 255, 255): 0,
    (0, 0, 255): 1,
    (0, 255, 255): 2,
    (0, 255, 0): 3,
    (255, 255, 0): 4,
    (255, 0, 0): 5,
    (0, 0, 0): IGNORE,
}
"""Colour in a mask → class; black is the border that the masks `noBoundary` leave out."""
# Some labels of Potsdam were saved with colours that are off by up to four levels (252, 255, 0 is a car).
_OFF = 8
_WHITE = 0.275


@dataclass(frozen=True)
class Town:
    """What distinguishes the two data sets."""

    task: str
    areas: Mapping[str, tuple[str, ...]]
    image: re.Pattern[str]
    """Group 1 is the area, group 2 the image type."""
    mask: re.Pattern[str]
    kinds: Mapping[str, tuple[str, ...]]
    """Kind of picture → its bands, the preferin RGB order."""
    archives: str
    note: str


POTSDAM = Town(
    task="potsdam",
    areas=published("potsdam").lists,
    image=re.compile(r"(?:^|/)top_potsdam_(\d+_\d+)_(RGBIR|RGB)\.tif$"),
    mask=re.compile(r"(?:^|/)top_potsdam_(\d+_\d+)_label(?:_noBoundary)?\.tif$"),
    kinds={"RGBIR": (*RGB, "B08"), "RGB": RGB},
    archives="4_Ortho_RGBIR.zip (or 2_Ortho_RGB.zip) and 5_Labels_all.zip",
    note="published split: the contest's areas",
)
VAIHINGEN = Town(
    task="vaihingen",
    areas=published("vaihingen").lists,
    image=re.compile(r"(?:^|/)(?:top/)top_mosaic_09cm_area(\d+)(\.)tif$"),
    mask=re.compile(r"(?:^|/)top_mosaic_09cm_area(\d+)(?:_noBoundary)?\.tif$"),
    kinds={".": RGB},
    archives="ISPRS_semantic_labeling_Vaihingen.zip and ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE.zip",
    note="published split: the contest's areas; "
    "the pictures are near infrared, red, green, shown to encoders as red, green, blue, as is published",
)


def read_potsdam(path: Path, hashes: Hashes = FRESH) -> DenseImages:
    """ISPRS Potsdam: `4_Ortho_RGBIR` (or `2_Ortho_RGB`) and `5_Labels_all`, zipped or not.

    Raises:
        UserError: see `_read`.
    """
    return _read(path, POTSDAM, hashes)


def read_vaihingen(path: Path, hashes: Hashes = FRESH) -> DenseImages:
    """ISPRS Vaihingen: `top/*.tif` and the complete ground truth beside it, zipped or not.

    Raises:
        UserError: see `_read`.
    """
    return _read(path, VAIHINGEN, hashes)


def _read(path: Path, town: Town, hashes: Hashes) -> DenseImages:
    """Check that every area has an image and a mask of its size; no image is decoded yet.

    Raises:
        UserError: an area is missing, or sizes differ.
    """
    archives = open_archives(path)
    pictures: dict[str, dict[str, str]] = {kind: {} for kind in town.kinds}
    masks: dict[str, str] = {}
    for name in archives.names():
        if match := town.image.search(name):
            pictures[match[2]][match[1]] = name
        elif (match := town.mask.search(name)) and (match[1] not in masks or "gts_for_participants" in masks[match[1]]):
            # the complete ground truth takes precedence over the contest's partial one
            masks[match[1]] = name
    wanted = [area for areas in town.areas.values() for area in areas]
    kind = max(town.kinds, key=lambda each: len(pictures[each]))
    for what, found in (("picture", pictures[kind]), ("mask", masks)):
        if missing := [area for area in wanted if area not in found]:
            raise UserError(
                f"{path}: no {what} of area {', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}; put "
                f"{town.archives} there, or unpack them there"
            )
    scenes = {part: tuple(_scene(archives, area, pictures[kind], masks) for area in areas) for part, areas in town.areas.items()}
    counts = ", ".join(f"{part} {len(areas)}" for part, areas in town.areas.items())
    border = "; borders of objects do not count" if any("noBoundary" in masks[area] for area in town.areas["test"]) else ""
    return DenseImages(
        task=town.task,
        classes=CLASSES,
        scored=SCORED,
        pixel_format=PixelFormat(town.kinds[kind], _WHITE / 255),
        dates=1,
        dtype="uint8",
        scenes=scenes,
        version=f"data-{archives.version(hashes)}",
        note=f"{town.note} ({counts}); clutter is learned, its IoU does not count{border}",
        decode=partial(_decode, archives, pictures[kind], masks, len(town.kinds[kind])),
    )


def _scene(archives: Archives, area: str, pictures: Mapping[str, str], masks: Mapping[str, str]) -> Scene:
    picture, mask = side_of(archives, pictures[area]), side_of(archives, masks[area])
    if picture != mask:
        raise UserError(f"{archives.root}: {pictures[area]} has {picture} rows and columns, its mask {mask}; fetch it again")
    return Scene(area, *picture)


def _decode(
    archives: Archives, pictures: Mapping[str, str], masks: Mapping[str, str], bands: int, area: str
) -> tuple[np.ndarray, np.ndarray]:
    """(1, C, H, W) uint8 and (H, W) uint8."""
    mask = classes_of(archives, masks[area], read_tif(archives, masks[area]))
    return expect(archives, pictures[area], read_tif(archives, pictures[area]), (bands, *mask.shape), "uint8")[None], mask


def classes_of(archives: Archives, name: str, colors: np.ndarray) -> np.ndarray:
    """Classes (H, W) uint8 of a coloured mask (3, H, W) uint8.

    Raises:
        UserError: a colour without a class.
    """
    if colors.ndim != 3 or colors.shape[0] < 3 or colors.dtype != np.uint8:
        found = "×".join(str(side) for side in colors.shape)
        raise UserError(f"{archives.root}: {name} is {found} {colors.dtype}; a mask of ISPRS is in colour, fetch it again")
    high = colors[:3] >= 128
    off = np.where(high, 255 - colors[:3], colors[:3]).max(axis=0)
    table = np.full(8, 254, np.uint8)
    for color, number in COLORS.items():
        table[sum((value > 0) << bit for bit, value in enumerate(color))] = number
    classes = table[high[0] + 2 * high[1].astype(np.uint8) + 4 * high[2].astype(np.uint8)]
    if (wrong := (off > _OFF) | (classes == 254)).any():
        row, col = np.argwhere(wrong)[0]
        color = tuple(int(value) for value in colors[:3, row, col])
        raise UserError(f"{archives.root}: {name} has the colour {color} at row {row}, column {col}; no class has it")
    return classes
