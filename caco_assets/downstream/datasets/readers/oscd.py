"""OSCD: change between two Sentinel-2 pictures (level 1C, 13 bands) of 24 cities (Daudt et al. 2018), from its three zips.

The authors' lists of 14 and 10 cities are shipped with the package (`published_splits.yaml`). They are used if the data has no
lists, and show whether lists next to the data are the published ones.
torchgeo's class unpacks the archives and returns whole cities; it would add a slow import and no check.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.archives import Archives, open_archives
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.image_decoding import expect, read_tif, side_of
from caco_assets.downstream.datasets.masks import read_change
from caco_assets.downstream.datasets.names import fold
from caco_assets.downstream.datasets.published_splits import published
from caco_assets.downstream.datasets.segmentation import DenseImages
from caco_assets.downstream.datasets.splits import list_sha256
from caco_assets.downstream.datasets.tiles import Scene
from caco_assets.pretraining.encoder.preprocessing import PixelFormat

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
CLASSES = ("no change", "change")
_BAND = re.compile(r"(?:^|/)([^/]+)/imgs_([12])_rect/[^/]*(B\d[\dA])\.tif$", re.IGNORECASE)
_MASK = re.compile(r"(?:^|/)([^/]+)/cm/cm\.png$", re.IGNORECASE)
_LIST = re.compile(r"(?:^|/)(train|test)\.txt$", re.IGNORECASE)

Files = dict[str, dict[tuple[int, str], str]]
"""City, by its compared name → (date, band) → member."""


def read(path: Path, hashes: Hashes = FRESH) -> DenseImages:
    """Check files, lists and sizes; no image is decoded yet.

    Args:
        path: a folder with the three zips (`Onera Satellite Change Detection dataset - Images.zip`, `… - Train Labels.zip`,
            `… - Test Labels.zip`) or with their contents.
        hashes: cache of content hashes.

    Raises:
        UserError: a list, city, band or mask is missing, or sizes differ.
    """
    archives = open_archives(path)
    files: Files = {}
    masks: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    for name in archives.names():
        if found := _BAND.search(name):
            files.setdefault(fold(found[1]), {})[int(found[2]), found[3].upper()] = name
        elif found := _MASK.search(name):
            masks[fold(found[1])] = name
        elif found := _LIST.search(name):
            lists[found[1].lower()] = tuple(
                city.strip() for city in archives.text(name).replace("\n", ",").split(",") if city.strip()
            )
    known = published("oscd").lists
    if not lists and files:
        lists = dict(known)
    for part in ("train", "test"):
        if not lists.get(part):
            raise UserError(f"{path}: no {part}.txt with the cities' names (it lies in the zip of the images); fetch it again")
    if both := sorted(set(lists["train"]) & set(lists["test"])):
        raise UserError(f"{path}: {both[0]} is in train.txt and in test.txt; fetch the lists again")
    scenes = {part: tuple(_scene(archives, city, files, masks, part) for city in cities) for part, cities in lists.items()}
    digests = {part: list_sha256(cities) for part, cities in lists.items()}
    return DenseImages(
        task="oscd",
        classes=CLASSES,
        scored=(1,),
        pixel_format=PixelFormat(BANDS, 1e-4),
        dates=2,
        dtype="uint16",
        scenes=scenes,
        version=f"data-{archives.version(hashes)}/splits-{digests['train'][:16]}-{digests['test'][:16]}",
        note=f"{'published' if _sets(lists) == _sets(known) else 'other'} lists of cities "
        f"({len(lists['train'])} train sha256 {digests['train']}, "
        f"{len(lists['test'])} test sha256 {digests['test']})",
        decode=partial(_decode, archives, files, masks),
    )


def _sets(lists: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
    return {part: set(cities) for part, cities in lists.items()}


def _scene(archives: Archives, city: str, files: Files, masks: dict[str, str], part: str) -> Scene:
    bands = files.get(fold(city), {})
    for date in (1, 2):
        if missing := [band for band in BANDS if (date, band) not in bands]:
            raise UserError(
                f"{archives.root}: {part}.txt names {city}, whose imgs_{date}_rect lacks {', '.join(missing)}; unpack all of "
                "the zip of the images"
            )
    if fold(city) not in masks:
        raise UserError(f"{archives.root}: {part}.txt names {city}, which has no cm/cm.png; put the zips of the labels there too")
    sides = {name: side_of(archives, name) for name in (masks[fold(city)], bands[1, "B04"], bands[2, "B04"])}
    (mask, side), *others = sides.items()
    for name, other in others:
        if other != side:
            raise UserError(f"{archives.root}: {name} has {other} rows and columns, {mask} has {side}; one is not the authors'")
    return Scene(city, *side)


def _decode(archives: Archives, files: Files, masks: dict[str, str], city: str) -> tuple[np.ndarray, np.ndarray]:
    """(2, 13, H, W) uint16 and (H, W) uint8."""
    mask = read_change(archives, masks[fold(city)])
    images = np.empty((2, len(BANDS), *mask.shape), np.uint16)
    for (date, band), name in files[fold(city)].items():
        if band in BANDS:
            images[date - 1, BANDS.index(band)] = expect(archives, name, read_tif(archives, name), mask.shape, "uint16")
    return images, mask
