"""A twin of LEVIR-CD: growing towns in pairs of 128×128 pictures of 5 m (the 10 m Earth enlarged; the authors': 1024 of 0.5 m)."""

from __future__ import annotations

from pathlib import Path

from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.synthetic.twins import dense_scenes as scenes
from caco_assets.synthetic.twins.growth import pair
from caco_assets.synthetic.twins.subset_declaration import declare

SIDE = 128
_COUNTS = {"train": (16, 4), "val": (6, 2), "test": (10, 3)}
"""Images in full, and at least."""


def write_twin(folder: Path, seed: int, count: int) -> Facts:
    """Write `train.zip`, `val.zip`, `test.zip` and `subset.json`; see `oscd.write_twin`."""
    counts = {part: scenes.scaled(full, count, least) for part, (full, least) in _COUNTS.items()}
    with scenes.ZipWriter(folder) as write:
        progress = Progress("twin of LEVIR-CD", sum(counts.values()), "pair")
        for start, (part, number) in zip((0, 100, 200), counts.items(), strict=True):
            for image in range(number):
                before, after, label, _ = pair(seed, "levir_cd", start + image, SIDE, SIDE)
                for name, pixels in (("A", before), ("B", after), ("label", label)):
                    write(f"{part}.zip", f"{name}/{part}_{image + 1}.png", scenes.png(pixels))
                progress.advance()
        progress.close()
    declare(folder, counts)
    return {f"{part}_images": number for part, number in counts.items()}
