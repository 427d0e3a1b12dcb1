"""A twin of ISPRS Potsdam: its 38 areas in four bands, `4_Ortho_RGBIR.zip` and `5_Labels_all.zip` (see `isprs_town`)."""

from __future__ import annotations

from pathlib import Path

from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.synthetic.twins import dense_scenes as scenes
from caco_assets.synthetic.twins.isprs_town import area

AREAS = tuple(
    f"{row}_{col}"
    for row, cols in (
        (2, range(10, 15)),
        (3, range(10, 15)),
        (4, range(10, 16)),
        (5, range(10, 16)),
        (6, range(7, 16)),
        (7, range(7, 14)),
    )
    for col in cols
)


def write_twin(folder: Path, seed: int, count: int) -> Facts:
    """Write both zips; see `oscd.write_twin`."""
    side = 96 if count >= 50 else 64
    with scenes.ZipWriter(folder) as write:
        progress = Progress("twin of Potsdam", len(AREAS), "area")
        for number, name in enumerate(AREAS):
            pixels, colours = area(seed, "potsdam", number, side, side, ("B04", "B03", "B02", "B08"))
            write("4_Ortho_RGBIR.zip", f"4_Ortho_RGBIR/top_potsdam_{name}_RGBIR.tif", scenes.tif(pixels))
            write("5_Labels_all.zip", f"top_potsdam_{name}_label.tif", scenes.tif(colours))
            progress.advance()
        progress.close()
    return {"areas": len(AREAS)}
