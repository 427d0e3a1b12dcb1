"""WHU-CD: building change in Christchurch between 2012 and 2016, 0.2 m (Ji, Wei and Lu 2019), in either of its two common splits.

`authors`: the two mosaics with separate training and test areas, as `1. The two-period image data` ships them.
`256`: the full area cut into 7 620 tiles of 256 px, `A`, `B`, `label` and `list/{train,val,test}.txt` (6 096, 762 and 762);
neighbouring tiles lie in different parts, so scores are higher. Without the lists, a seeded split of the same shares.
Scores of the two cannot be compared. torchgeo has no class for it.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets import change_pairs
from caco_assets.downstream.datasets.archives import Archives, open_archives
from caco_assets.downstream.datasets.change_pairs import Pair
from caco_assets.downstream.datasets.completeness import check_whole
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.names import fold
from caco_assets.downstream.datasets.published_splits import published
from caco_assets.downstream.datasets.segmentation import PHOTOGRAPH, DenseImages
from caco_assets.downstream.datasets.splits import PARTS, list_sha256
from caco_assets.downstream.datasets.tiles import Scene

SIDE = 256
_IMAGE = re.compile(r"(?:^|/)(2012|2016)/whole_image/(train|test)/image/[^/]+\.tif$", re.IGNORECASE)
_CHANGE = re.compile(r"(?:^|/)change_label/(train|test)/[^/]+\.tif$", re.IGNORECASE)
_TILE = re.compile(r"(?:^|/)(A|B|label)/([^/]+\.(?:png|tif))$", re.IGNORECASE)
_LIST = re.compile(r"(?:^|/)list/(train|val|test)\.txt$", re.IGNORECASE)
_SHARES, _SEED = (0.8, 0.1, 0.1), 0


def read(path: Path, hashes: Hashes = FRESH) -> DenseImages:
    """Detect the split from the layout, and check its files; no image is decoded yet.

    Args:
        path: a folder with the zip, or with what it holds.
        hashes: cache of content hashes.

    Raises:
        IncompleteError: tiles without lists, and fewer or more than published, or than `subset.json` declares.
        UserError: neither layout, a file is missing, or sizes differ.
    """
    archives = open_archives(path)
    names = archives.names()
    if any(_IMAGE.search(name) for name in names):
        scenes, known, split, note = _authors(archives)
    elif any(_TILE.search(name) for name in names):
        scenes, known, split, note = _tiles(archives)
    else:
        raise UserError(f"{path}: neither 2012/whole_image/train/image/*.tif nor A/*.png in it; is this WHU-CD?")
    return DenseImages(
        task="whu_cd",
        classes=change_pairs.CLASSES,
        scored=(1,),
        pixel_format=PHOTOGRAPH,
        dates=2,
        dtype="uint8",
        scenes=scenes,
        version=f"data-{archives.version(hashes)}/split-{split}",
        note=note,
        decode=partial(change_pairs.decode, archives, known),
    )


Read = tuple[dict[str, tuple[Scene, ...]], dict[str, Pair], str, str]
"""Scenes by part, members by scene, name of the split for the version, and its note."""


def _authors(archives: Archives) -> Read:
    found: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for name in archives.names():
        if match := _IMAGE.search(name):
            found[match[2].lower()]["A" if match[1] == "2012" else "B"] = name
        elif match := _CHANGE.search(name):
            found[match[1].lower()]["label"] = name
    known = {part: Pair.of(archives, f"whole_image/{part}", members) for part, members in found.items() if members}
    if missing := [part for part in found if part not in known]:
        raise UserError(f"{archives.root}: no whole_image/{missing[0]}/image/*.tif in it; fetch the archive again")
    scenes = {part: (change_pairs.scene(archives, part, pair),) for part, pair in known.items()}
    return scenes, known, "authors", "published split `authors`: training and test area apart"


def _tiles(archives: Archives) -> Read:
    found: dict[str, dict[str, str]] = {}
    names: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    for name in archives.names():
        if match := _TILE.search(name):
            found.setdefault(names.setdefault(fold(match[2]), match[2]), {})[change_pairs.folder_of(match[1])] = name
        elif match := _LIST.search(name):
            lists[match[1].lower()] = tuple(line.strip() for line in archives.text(name).splitlines() if line.strip())
    lists = {part: tuple(names.get(fold(line), line) for line in lines) for part, lines in lists.items()}
    known = {name: Pair.of(archives, name, members) for name, members in found.items()}
    sizes = published("whu_cd").sizes
    same = all(len(lists.get(part, ())) == size for part, size in sizes.items())
    source = f"{'lists of the published sizes' if same else 'other lists'} beside the tiles (no checksum of them is published)"
    part_note = ""
    if not lists:
        part_note = check_whole(archives.root, {"tiles": len(known)}, {"tiles": sum(sizes.values())})
        lists, source = _seeded(sorted(known)), f"seeded 80/10/10 split (seed {_SEED}), no list/train.txt beside the tiles"
    for part in PARTS:
        if not lists.get(part):
            raise UserError(f"{archives.root}: list/{part}.txt is missing or empty; put all three lists there, or none")
        if absent := next((name for name in lists[part] if name not in known), None):
            raise UserError(f"{archives.root}: list/{part}.txt names {absent}, which is not in A, B and label; fetch all tiles")
    if len(set().union(*lists.values())) < sum(len(set(names)) for names in lists.values()):
        raise UserError(f"{archives.root}: a tile is in two of the lists in list/; a tile belongs to one part only")
    scenes = {part: tuple(change_pairs.scene(archives, name, known[name]) for name in lists[part]) for part in PARTS}
    digest = list_sha256(tuple(list_sha256(lists[part]) for part in PARTS))
    counts = ", ".join(f"{part} {len(lists[part])}" for part in PARTS)
    note = f"split `256`: {source} ({counts} tiles, sha256 of the lists {digest}){part_note}"
    note += change_pairs.same_size(archives, scenes, SIDE)
    return scenes, known, f"256-{digest[:16]}", note


def _seeded(names: list[str]) -> dict[str, tuple[str, ...]]:
    order = np.random.default_rng(_SEED).permutation(names)
    ends = np.rint(np.cumsum(_SHARES)[:-1] * len(names)).astype(int)
    return {part: tuple(sorted(chunk.tolist())) for part, chunk in zip(PARTS, np.split(order, ends), strict=True)}
