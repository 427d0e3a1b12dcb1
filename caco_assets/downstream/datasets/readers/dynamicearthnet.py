"""DynamicEarthNet: 75 cubes of daily 3 m pictures (4 bands, 1024×1024) with a mask for the first day of each of 24 months.

Toker et al. 2022. A cube's monthly picture and mask are one image here, and a cube's months are one group. As in the authors'
reader, the masks have one band (0 or 255) for each of seven classes; snow and ice is too rare to score and is ignored. Their lists
have a line for each month: folder of the pictures, mask, `YYYY-MM`. torchgeo has no class for it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.archives import Archives, open_archives
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.image_decoding import IGNORE, expect, read_tif, side_of
from caco_assets.downstream.datasets.names import fold
from caco_assets.downstream.datasets.segmentation import DenseImages
from caco_assets.downstream.datasets.splits import PARTS, list_sha256
from caco_assets.downstream.datasets.tiles import Scene
from caco_assets.pretraining.encoder.preprocessing import PixelFormat

BANDS = ("B02", "B03", "B04", "B08")
"""Blue, green, red, near infrared; harmonised with Sentinel-2 by the provider, reflectance × 10 000."""
CLASSES = ("impervious surface", "agriculture", "forest and other vegetation", "wetlands", "soil", "water")
SNOW = 6
"""Band of the masks that is ignored."""
SIDE = 1024
_LIST = re.compile(r"(?:^|/)(train|val|test)\.txt$", re.IGNORECASE)
_CUBE = re.compile(r"\d+_\d+_\d+")


def read(path: Path, hashes: Hashes = FRESH) -> DenseImages:
    """Check the lists, and that each line has an image and a mask of the same size; no image is decoded yet.

    Args:
        path: a folder with the authors' `train.txt`, `val.txt`, `test.txt` (in `dynnet_training_splits`), `planet` and `labels`.
        hashes: cache of content hashes.

    Raises:
        UserError: a list is missing, a line is not understood or names a missing file, or sizes differ.
    """
    archives = open_archives(path)
    lists: dict[str, tuple[str, ...]] = {}
    endings: dict[str, list[str]] = defaultdict(list)
    for name in archives.names():
        if match := _LIST.search(name):
            lists[match[1].lower()] = tuple(line.strip() for line in archives.text(name).splitlines() if line.strip())
        endings[fold(PurePosixPath(name).name)].append(name)
    for part in PARTS:
        if not lists.get(part):
            raise UserError(f"{path}: no {part}.txt in it; put the authors' split files there (folder dynnet_training_splits)")
    members: dict[str, tuple[str, str]] = {}
    scenes = {
        part: tuple(_scene(archives, endings, members, f"{part}.txt", line) for line in lines) for part, lines in lists.items()
    }
    cubes = {part: {scene.group for scene in scenes[part]} for part in PARTS}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        if both := sorted(cubes[one] & cubes[other]):
            raise UserError(f"{path}: cube {both[0]} is in {one}.txt and in {other}.txt; fetch the lists again")
    side = next(iter(scenes["train"]))
    size = "" if (side.height, side.width) == (SIDE, SIDE) else f"; cubes of {side.height}×{side.width}, the authors' have {SIDE}"
    digests = {part: list_sha256(lists[part]) for part in PARTS}
    return DenseImages(
        task="dynamicearthnet",
        classes=CLASSES,
        scored=tuple(range(len(CLASSES))),
        pixel_format=PixelFormat(BANDS, 1e-4),
        dates=1,
        dtype="uint16",
        scenes=scenes,
        version=f"data-{archives.version(hashes)}/splits-{list_sha256(tuple(digests.values()))}",
        note="lists beside the data, no checksum of the authors' is published ("
        + ", ".join(f"{part} {len(cubes[part])} cubes, sha256 {digests[part]}" for part in PARTS)
        + f"), first day of each month; snow and ice ignored{size}",
        decode=partial(_decode, archives, members),
    )


def _scene(
    archives: Archives, endings: Mapping[str, list[str]], members: dict[str, tuple[str, str]], where: str, line: str
) -> Scene:
    fields = line.split()
    if len(fields) != 3 or not re.fullmatch(r"\d{4}-\d\d", fields[2]):
        raise UserError(f"{archives.root}: {where} has the line {line[:80]!r}; not `pictures mask YYYY-MM`; fetch it again")
    folder, label, month = fields[0].strip("/"), fields[1].strip("/"), fields[2]
    pair = []
    for wanted in (f"{folder}/{month}-01.tif", label):
        compared = fold(wanted)
        close = endings.get(fold(PurePosixPath(wanted).name), [])
        found = [name for name in close if fold(name) == compared or fold(name).endswith(f"/{compared}")]
        if not found:
            raise UserError(f"{archives.root}: {where} names {wanted}, which is not there; unpack all archives of the data set")
        pair.append(found[0])
    picture, mask = side_of(archives, pair[0]), side_of(archives, pair[1])
    if picture != mask:
        raise UserError(f"{archives.root}: {pair[0]} has {picture} rows and columns, its mask {mask}; these are not a pair")
    cube = next((part for part in PurePosixPath(label).parts if _CUBE.match(part)), PurePosixPath(label).parts[0])
    name = f"{cube}/{month}"
    members[name] = (pair[0], pair[1])
    return Scene(name, *picture, group=cube)


def _decode(archives: Archives, members: Mapping[str, tuple[str, str]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(1, 4, H, W) uint16 and (H, W) uint8."""
    picture, label = members[name]
    onehot = read_tif(archives, label)
    onehot = expect(archives, label, onehot, (len(CLASSES) + 1, *onehot.shape[-2:]), "uint8")
    if (wrong := (onehot != 0) & (onehot != 255)).any():
        value = int(onehot[wrong][0])
        raise UserError(f"{archives.root}: {label} has the value {value}; masks have a band of 0 and 255 for each class")
    mask = np.full(onehot.shape[-2:], IGNORE, np.uint8)
    for number in range(len(CLASSES)):
        mask[onehot[number] == 255] = number
    mask[onehot[SNOW] == 255] = IGNORE
    return expect(archives, picture, read_tif(archives, picture), (len(BANDS), *mask.shape), "uint16")[None], mask
