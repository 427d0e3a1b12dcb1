"""A twin of ISPRS Vaihingen: its 33 areas of unlike sizes in near infrared, red and green, in its two zips (see `isprs_town`)."""

from __future__ import annotations

from pathlib import Path

from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.synthetic.twins import dense_scenes as scenes
from caco_assets.synthetic.twins.isprs_town import area

AREAS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 20, 21, 22, 23, 24, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 37, 38)
_PICTURES = "ISPRS_semantic_labeling_Vaihingen.zip"
_LABELS = "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE.zip"


def write_twin(folder: Path, seed: int, count: int) -> Facts:
    """Write both zips; see `oscd.write_twin`."""
    side = 96 if count >= 50 else 64
    with scenes.ZipWriter(folder) as write:
        progress = Progress("twin of Vaihingen", len(AREAS), "area")
        for number in AREAS:
            rows, cols = side, side + (16 if number % 4 == 0 else 0)
            pixels, colours = area(seed, "vaihingen", number, rows, cols, ("B08", "B04", "B03"))
            write(_PICTURES, f"top/top_mosaic_09cm_area{number}.tif", scenes.tif(pixels))
            write(_LABELS, f"top_mosaic_09cm_area{number}.tif", scenes.tif(colours))
            progress.advance()
        progress.close()
    return {"areas": len(AREAS)}
