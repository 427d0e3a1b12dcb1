"""ISPRS Potsdam and Vaihingen: land cover of two German towns at 5 and 9 cm, masks in six colours, tests on the contest's areas.

torchgeo has classes for both; they treat unknown colours as clutter, silently skip missing areas, and import slowly.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
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

logger = logging.getLogger(__name__)

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
    """Kind of picture → its bands, the preferred kind first."""
    archives: str
    note: str
    faulty: Mapping[str, str] = field(default_factory=dict)
    """Area → what is wrong with its mask as published."""


POTSDAM = Town(
    task="potsdam",
    areas=published("potsdam").lists,
    image=re.compile(r"(?:^|/)top_potsdam_(\d+_\d+)_(RGBIR|RGB)\.tif$", re.IGNORECASE),
    mask=re.compile(r"(?:^|/)top_potsdam_(\d+_\d+)_label(?:_noBoundary)?\.tif$", re.IGNORECASE),
    kinds={"RGBIR": (*RGB, "B08"), "RGB": RGB},
    archives="4_Ortho_RGBIR.zip (or 2_Ortho_RGB.zip) and 5_Labels_all.zip",
    note="published split: the contest's areas",
    faulty=published("potsdam").faulty,
)
VAIHINGEN = Town(
    task="vaihingen",
    areas=published("vaihingen").lists,
    image=re.compile(r"(?:^|/)(?:top/)top_mosaic_09cm_area(\d+)(\.)tif$", re.IGNORECASE),
    mask=re.compile(r"(?:^|/)top_mosaic_09cm_area(\d+)(?:_noBoundary)?\.tif$", re.IGNORECASE),
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
    copies: dict[str, list[str]] = {}
    for name in archives.names():
        if match := town.image.search(name):
            pictures[match[2].upper()][match[1]] = name
        elif match := town.mask.search(name):
            copies.setdefault(match[1], []).append(name)
    # the complete ground truth takes precedence over the contest's partial one
    masks = {area: sorted(names, key=lambda name: "for_participants" in name.lower())[0] for area, names in copies.items()}
    wanted = [area for areas in town.areas.values() for area in areas]
    kind = max(town.kinds, key=lambda each: len(pictures[each]))
    for what, found in (("picture", pictures[kind]), ("mask", masks)):
        if missing := [area for area in wanted if area not in found]:
            raise UserError(
                f"{path}: no {what} of area {', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}; put "
                f"{town.archives} there, or unpack them there"
            )
    left_out, note = _replace_faulty(archives, town, copies, masks)
    scenes = {
        part: tuple(_scene(archives, area, pictures[kind], masks) for area in areas if area not in left_out)
        for part, areas in town.areas.items()
    }
    counts = ", ".join(f"{part} {len(areas)}" for part, areas in scenes.items())
    border = "; borders of objects do not count" if any("noboundary" in masks[area].lower() for area in town.areas["test"]) else ""
    return DenseImages(
        task=town.task,
        classes=CLASSES,
        scored=SCORED,
        pixel_format=PixelFormat(town.kinds[kind], _WHITE / 255),
        dates=1,
        dtype="uint8",
        scenes=scenes,
        version=f"data-{archives.version(hashes)}{''.join(f'/without-{area}' for area in left_out)}",
        note=f"{town.note} ({counts}); clutter is learned, its IoU does not count{border}{note}",
        decode=partial(_decode, archives, pictures[kind], masks, len(town.kinds[kind])),
    )


def _replace_faulty(
    archives: Archives, town: Town, copies: Mapping[str, list[str]], masks: dict[str, str]
) -> tuple[tuple[str, ...], str]:
    """Take another copy of the masks that are known to be faulty as published, or leave their areas out.

    Only these masks are decoded here. A fault in any other stops the task when it is read.

    Returns:
        The areas left out, and text for the note of a score; both empty if all masks are sound.
    """
    left_out, note = [], ""
    for area, fault in town.faulty.items():
        first, *others = [masks[area], *(name for name in copies[area] if name != masks[area])]
        if _sound(archives, first):
            continue
        if (sound := next((name for name in others if _sound(archives, name)), None)) is not None:
            masks[area] = sound
            note += f"; area {area}: {fault}, the copy {sound} is used"
        else:
            left_out.append(area)
            note += f"; area {area} left out: {fault}, and no sound copy is beside it"
    if note:
        logger.warning(f"{town.task}{note.replace(';', ':', 1)}")
    return tuple(left_out), note


def _sound(archives: Archives, name: str) -> bool:
    try:
        classes_of(archives, name, read_tif(archives, name, mask=True))
    except UserError:
        return False
    return True


def _scene(archives: Archives, area: str, pictures: Mapping[str, str], masks: Mapping[str, str]) -> Scene:
    picture, mask = side_of(archives, pictures[area]), side_of(archives, masks[area])
    if picture != mask:
        raise UserError(
            f"{archives.root}: {pictures[area]} has {picture} rows and columns, its mask {mask}; one is not the authors'"
        )
    return Scene(area, *picture)


def _decode(
    archives: Archives, pictures: Mapping[str, str], masks: Mapping[str, str], bands: int, area: str
) -> tuple[np.ndarray, np.ndarray]:
    """(1, C, H, W) uint8 and (H, W) uint8."""
    mask = classes_of(archives, masks[area], read_tif(archives, masks[area], mask=True))
    return expect(archives, pictures[area], read_tif(archives, pictures[area]), (bands, *mask.shape), "uint8")[None], mask


def classes_of(archives: Archives, name: str, colors: np.ndarray) -> np.ndarray:
    """Classes (H, W) uint8 of a coloured mask (3, H, W) uint8.

    Raises:
        UserError: a colour without a class.
    """
    if colors.ndim != 3 or colors.shape[0] < 3 or colors.dtype != np.uint8:
        found = "×".join(str(side) for side in colors.shape)
        raise UserError(
            f"{archives.root}: {name} is {found} {colors.dtype}; a mask of ISPRS is in colour, as its authors publish it"
        )
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
