"""A twin of LoveDA: land cover in 128×128 pictures of 5 m (the 10 m Earth enlarged; the authors have 1024 of 0.3 m).

True cover gives six of the seven classes: nothing here is barren. A strip of some pictures has no data, as in the authors'.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.synthetic.earth import noise, region
from caco_assets.synthetic.earth.earth import enlarged
from caco_assets.synthetic.twins import dense_scenes as scenes
from caco_assets.synthetic.twins.subset_declaration import declare

SIDE, _ZOOM = 128, 2
_BACKGROUND, _BUILDING, _ROAD, _WATER, _FOREST, _AGRICULTURE = 1, 2, 3, 4, 6, 7
CODES = {
    region.RESIDENTIAL: _BUILDING,
    region.INDUSTRIAL: _BUILDING,
    region.HIGHWAY: _ROAD,
    region.RIVER: _WATER,
    region.SEALAKE: _WATER,
    region.FOREST: _FOREST,
    region.ANNUAL: _AGRICULTURE,
    region.PERMANENT: _AGRICULTURE,
}
_COUNTS = {"Train": (8, 2), "Val": (5, 2), "Test": (2, 1)}
"""Images of each of Urban and Rural, in full and at least."""


def write_twin(folder: Path, seed: int, count: int) -> Facts:
    """Write `Train.zip`, `Val.zip` and, without masks, `Test.zip`, and `subset.json`; see `oscd.write_twin`."""
    counts = {part: scenes.scaled(full, count, least) for part, (full, least) in _COUNTS.items()}
    with scenes.ZipWriter(folder) as write:
        progress = Progress("twin of LoveDA", 2 * sum(counts.values()), "picture")
        number = 0
        for part, images in counts.items():
            for scene, reach in (("Rural", 3000.0), ("Urban", 600.0)):
                for _ in range(images):
                    _picture(write, seed, part, scene, number, reach)
                    number += 1
                    progress.advance()
        progress.close()
    declare(folder, {part: 2 * counts[part] for part in ("Train", "Val")})
    return {f"{part.lower()}_images": 2 * images for part, images in counts.items()}


def _picture(write: scenes.Write, seed: int, part: str, scene: str, number: int, reach: float) -> None:
    where = scenes.place(seed, "loveda", number, SIDE // _ZOOM, SIDE // _ZOOM, reach=reach)
    view = where.view()
    draw = noise.generator("loveda date", seed, number)
    when = datetime(2016, 4, 1, 10, 40, tzinfo=UTC) + timedelta(days=int(180 * draw.random()))
    pixels = scenes.picture(
        scenes.reflectance(where, view, when, ("B04", "B03", "B02")), _ZOOM, noise.key_of("loveda", seed, number)
    )
    mask = enlarged(scenes.recoded(scenes.cover(where, view, when), CODES, _BACKGROUND), _ZOOM)
    if number % 5 == 4:
        pixels[:, :, -9:] = 0
        mask[:, -9:] = 0
    write(f"{part}.zip", f"{part}/{scene}/images_png/{number}.png", scenes.png(pixels))
    if part != "Test":
        write(f"{part}.zip", f"{part}/{scene}/masks_png/{number}.png", scenes.png(mask))
