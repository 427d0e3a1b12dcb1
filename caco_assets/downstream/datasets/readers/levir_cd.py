"""LEVIR-CD: building change in 637 pairs of 1024×1024 pictures of 0.5 m (Chen and Shi 2020), `train|val|test/{A,B,label}/*.png`.

The authors have 445 pairs in `train.zip`, 64 in `val.zip` and 128 in `test.zip`; the archives define the split, there are no lists.
torchgeo's class unpacks the archives; it would add a slow import and no check.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets import change_pairs
from caco_assets.downstream.datasets.archives import open_archives
from caco_assets.downstream.datasets.completeness import check_whole
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.names import fold
from caco_assets.downstream.datasets.published_splits import published
from caco_assets.downstream.datasets.segmentation import PHOTOGRAPH, DenseImages
from caco_assets.downstream.datasets.splits import PARTS

SIDE = 1024
_MEMBER = re.compile(r"(?:^|/)(?:(train|val|test)/(?:[^/]+/)?)?(A|B|label)/((train|val|test)_[^/]+|[^/]+)\.png$", re.IGNORECASE)


def read(path: Path, hashes: Hashes = FRESH) -> DenseImages:
    """Check that each image has both dates and a mask of the same size; no image is decoded yet.

    Args:
        path: a folder with `train.zip`, `val.zip`, `test.zip`, or with their contents, in one folder per part or all together
            (file names then begin with their part).
        hashes: cache of content hashes.

    Raises:
        IncompleteError: fewer or more pairs than published, or than `subset.json` declares.
        UserError: a part, a date or a mask is missing, or sizes differ.
    """
    archives = open_archives(path)
    found: dict[str, dict[str, dict[str, str]]] = {part: {} for part in PARTS}
    stems: dict[tuple[str, str], str] = {}
    for name in archives.names():
        if match := _MEMBER.search(name):
            part = (match[1] or match[4] or "").lower()
            if not part:
                raise UserError(f"{path}: {name} lies in no folder train, val or test, nor does its name begin so; fetch it again")
            stem = stems.setdefault((part, fold(match[3])), match[3])
            found[part].setdefault(stem, {})[change_pairs.folder_of(match[2])] = name
    for part in PARTS:
        if not found[part]:
            raise UserError(f"{path}: no {part}/A/*.png in it; put {part}.zip there, or unpack it there")
    part_note = check_whole(path, {part: len(found[part]) for part in PARTS}, published("levir_cd").sizes)
    known = {
        f"{part}/{name}": change_pairs.Pair.of(archives, f"{part}/{name}", each)
        for part in PARTS
        for name, each in found[part].items()
    }
    scenes = {
        part: tuple(change_pairs.scene(archives, f"{part}/{name}", known[f"{part}/{name}"]) for name in found[part])
        for part in PARTS
    }
    counts = ", ".join(f"{part} {len(scenes[part])}" for part in PARTS)
    same = change_pairs.same_size(archives, scenes, SIDE)
    return DenseImages(
        task="levir_cd",
        classes=change_pairs.CLASSES,
        scored=(1,),
        pixel_format=PHOTOGRAPH,
        dates=2,
        dtype="uint8",
        scenes=scenes,
        version=f"data-{archives.version(hashes)}",
        note=f"{'other' if part_note else 'published'} split ({counts} images){part_note}{same}",
        decode=partial(change_pairs.decode, archives, known),
    )
