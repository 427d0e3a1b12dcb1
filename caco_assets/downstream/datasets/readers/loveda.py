"""LoveDA: land cover in 5 987 pictures of 1024×1024 at 0.3 m (Wang et al. 2021), `Train|Val/Urban|Rural/{images,masks}_png`.

`Train` has 2 522 pictures, `Val` 1 669, `Test` 1 796. The masks of `Test` are not public (a server scores them), so scores are on
`Val`, and a seeded fifth of the images of `Train` validates.
torchgeo's class would add a slow import and no check.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.archives import Archives, open_archives
from caco_assets.downstream.datasets.completeness import check_whole
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.image_decoding import IGNORE, expect, read_picture, side_of
from caco_assets.downstream.datasets.masks import read_codes
from caco_assets.downstream.datasets.names import fold
from caco_assets.downstream.datasets.published_splits import published
from caco_assets.downstream.datasets.segmentation import PHOTOGRAPH, DenseImages
from caco_assets.downstream.datasets.tiles import Scene

CLASSES = ("background", "building", "road", "water", "barren", "forest", "agriculture")
SIDE = 1024
CODES = {0: IGNORE, **{number: number - 1 for number in range(1, 8)}}
"""Mask value → class; 0 means no data."""
_MEMBER = re.compile(r"(?:^|/)(Train|Val)/(Urban|Rural)/(images_png|masks_png)/([^/]+)\.png$", re.IGNORECASE)


def read(path: Path, hashes: Hashes = FRESH) -> DenseImages:
    """Check that each image has a mask of its size; no image is decoded yet.

    Args:
        path: a folder with `Train.zip` and `Val.zip`, or with the folders they hold.
        hashes: cache of content hashes.

    Raises:
        IncompleteError: fewer or more pictures than published, or than `subset.json` declares.
        UserError: a part, a picture or a mask is missing, or sizes differ.
    """
    archives = open_archives(path)
    found: dict[str, dict[str, str]] = {}
    names: dict[str, str] = {}
    for name in archives.names():
        if match := _MEMBER.search(name):
            scene = f"{match[1].title()}/{match[2].title()}/{match[4]}"
            found.setdefault(names.setdefault(fold(scene), scene), {})[match[3].lower()] = name
    parts = {"train": "Train", "test": "Val"}
    for folder in parts.values():
        for scene in ("Urban", "Rural"):
            if not any(name.startswith(f"{folder}/{scene}/") for name in found):
                raise UserError(f"{path}: no {folder}/{scene}/images_png/*.png in it; put {folder}.zip there, or unpack it there")
    counts = {folder: sum(name.startswith(f"{folder}/") for name in found) for folder in parts.values()}
    part_note = check_whole(path, counts, published("loveda").sizes)
    scenes = {
        part: tuple(_scene(archives, name, found[name]) for name in found if name.startswith(f"{folder}/"))
        for part, folder in parts.items()
    }
    other = next((scene for part in scenes.values() for scene in part if (scene.height, scene.width) != (SIDE, SIDE)), None)
    size = "" if other is None else f"; pictures of {other.height}×{other.width}, the authors' have {SIDE}"
    return DenseImages(
        task="loveda",
        classes=CLASSES,
        scored=tuple(range(len(CLASSES))),
        pixel_format=PHOTOGRAPH,
        dates=1,
        dtype="uint8",
        scenes=scenes,
        version=f"data-{archives.version(hashes)}",
        note=f"{'other' if part_note else 'published'} split: trained on Train ({counts['Train']}), tested on Val "
        f"({counts['Val']}): Test has no public masks{part_note}{size}",
        decode=partial(_decode, archives, found),
    )


def _scene(archives: Archives, name: str, members: Mapping[str, str]) -> Scene:
    for folder in ("images_png", "masks_png"):
        if folder not in members:
            raise UserError(f"{archives.root}: {name} has no file in {folder}; fetch the data set again")
    sides = [side_of(archives, members[folder]) for folder in ("images_png", "masks_png")]
    if sides[0] != sides[1]:
        raise UserError(
            f"{archives.root}: {members['images_png']} has {sides[0]} rows and columns, its mask {sides[1]}; these are not a pair"
        )
    return Scene(name, *sides[0])


def _decode(archives: Archives, found: Mapping[str, Mapping[str, str]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(1, 3, H, W) uint8 and (H, W) uint8."""
    members = found[name]
    mask = read_codes(archives, members["masks_png"], CODES)
    image = expect(archives, members["images_png"], read_picture(archives, members["images_png"]), (3, *mask.shape), "uint8")
    return image[None], mask
