"""A twin of WHU-CD by its authors' split: one mosaic to train on, another to test on, of 5 m (the 10 m Earth enlarged)."""

from __future__ import annotations

from itertools import count as count_up
from pathlib import Path

from caco_assets.core.atomic import write_atomic
from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.synthetic.twins import dense_scenes as scenes
from caco_assets.synthetic.twins.growth import ZOOM, pair

_ROOT = Path("1. The two-period image data")
# strips, so that tiles stay small and many
_SHAPES = {"train": (96, 1344), "test": (96, 960)}
_SMALL = {"train": (128, 192), "test": (96, 160)}


def write_twin(folder: Path, seed: int, count: int) -> Facts:
    """Write the mosaics of 2012 and 2016 and what was built between; see `oscd.write_twin`."""
    shapes = _SHAPES if count >= 50 else _SMALL
    progress = Progress("twin of WHU-CD", len(shapes), "mosaic")
    for number, (part, (rows, cols)) in enumerate(shapes.items()):
        # a small mosaic may lie where nothing was built, and would teach nothing
        drawn = (pair(seed, "whu_cd", number + len(shapes) * further, rows, cols) for further in count_up())
        before, after, label, where = next(each for each in drawn if each[2].any())
        for year, pixels in ((2012, before), (2016, after)):
            file = folder / _ROOT / str(year) / "whole_image" / part / "image" / f"{year}_{part}.tif"
            write_atomic(file, scenes.tif(pixels, where, ZOOM))
        write_atomic(folder / _ROOT / "change_label" / part / "change_label.tif", scenes.tif(label[None], where, ZOOM))
        progress.advance()
    progress.close()
    return {f"{part}_pixels": rows * cols for part, (rows, cols) in shapes.items()}
