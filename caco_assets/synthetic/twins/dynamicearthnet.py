"""A twin of DynamicEarthNet: cubes of 24 months in four bands, 64×64 of 5 m (the 10 m Earth enlarged; the authors': 1024 of 3 m).

True cover gives four of the seven classes: there are no wetlands, no bare soil for good and no snow. Each cube has the first day
of each month alone, which is what its masks are of.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from caco_assets.core.atomic import write_atomic
from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.synthetic.earth import region
from caco_assets.synthetic.earth.earth import enlarged, scaled_numbers
from caco_assets.synthetic.twins import dense_scenes as scenes

SIDE, _ZOOM = 64, 2
_IMPERVIOUS, _AGRICULTURE, _FOREST, _WATER = 0, 1, 2, 5
CODES = {
    region.RESIDENTIAL: _IMPERVIOUS,
    region.INDUSTRIAL: _IMPERVIOUS,
    region.HIGHWAY: _IMPERVIOUS,
    region.ANNUAL: _AGRICULTURE,
    region.PERMANENT: _AGRICULTURE,
    region.RIVER: _WATER,
    region.SEALAKE: _WATER,
}
_CUBES = {"train": (6, 2), "val": (3, 1), "test": (6, 2)}
_MONTHS = 24
_START, _STOP = datetime(2018, 3, 1, tzinfo=UTC), datetime(2019, 10, 1, tzinfo=UTC)
_SPLITS = "dynnet_training_splits"


def write_twin(folder: Path, seed: int, count: int) -> Facts:
    """Write `planet`, `labels` and the lists; see `oscd.write_twin`."""
    cubes = {part: scenes.scaled(full, count, least) for part, (full, least) in _CUBES.items()}
    months = _MONTHS if count >= 50 else 3
    progress = Progress("twin of DynamicEarthNet", sum(cubes.values()), "cube")
    for start, (part, number) in zip((0, 100, 200), cubes.items(), strict=True):
        lines: list[str] = []
        for cube in range(start, start + number):
            lines += _cube(folder, seed, cube, months)
            progress.advance()
        write_atomic(folder / _SPLITS / f"{part}.txt", "".join(f"{line}\n" for line in lines))
    progress.close()
    return {**{f"{part}_cubes": number for part, number in cubes.items()}, "months": months}


def _cube(folder: Path, seed: int, number: int, months: int) -> list[str]:
    """Lines of the list: folder of the pictures, mask, month."""
    where = scenes.place(seed, "dynamicearthnet", number, SIDE // _ZOOM, SIDE // _ZOOM, (_START, _STOP))
    view = where.view()
    zone, cube = f"{where.window.epsg % 100}N", f"{1000 + number}_{3000 + number}_13"
    raster = f"{zone}-twin-L3H-SR"
    pictures = f"planet/{zone}/{cube}/PF-SR"
    lines = []
    for month in range(months):
        when = datetime(2018 + month // 12, 1 + month % 12, 1, 10, 40, tzinfo=UTC)
        surface = scenes.reflectance(where, view, when, ("B02", "B03", "B04", "B08"))
        large = enlarged(scaled_numbers(surface), _ZOOM)
        write_atomic(folder / pictures / f"{when:%Y-%m-%d}.tif", scenes.tif(large, where, _ZOOM))
        classes = enlarged(scenes.recoded(scenes.cover(where, view, when), CODES, _FOREST), _ZOOM)
        onehot = (classes[None] == np.arange(7, dtype=np.uint8)[:, None, None]).astype(np.uint8) * 255
        label = f"labels/{cube}_{zone}/Labels/Raster/{raster}/{raster}-{when:%Y-%m-%d}.tif"
        write_atomic(folder / label, scenes.tif(onehot, where, _ZOOM))
        lines.append(f"/{pictures} /{label} {when:%Y-%m}")
    return lines
