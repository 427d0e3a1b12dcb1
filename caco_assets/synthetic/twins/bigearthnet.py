"""A twin of BigEarthNet-S2, first version: folders of twelve one-band tifs with `…_labels_metadata.json`, lists, 43 labels."""

from __future__ import annotations

import json
from pathlib import Path

from caco_assets.core.atomic import write_atomic
from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.synthetic.twins.bigearthnet_scenes import NAMES, SIDE, Patch, draw, places, present, split_of

KIND = "bigearthnet"
SPLITS = ("train", "val", "test")
_CLOUDY_EVERY = 25
"""One patch in so many is overcast and stands on the authors' list of cloud and shadow."""


def write_twin(folder: Path, seed: int, count: int) -> Facts:
    """Write `BigEarthNet-v1.0/<patch>/`, `{train,val,test}.csv` and the lists of snow (empty: none is drawn) and cloud.

    Args:
        folder: of the twin.
        seed: of the Earth.
        count: images that EuroSAT's twin has in each class; this one has twice as many patches in all.
    """
    wanted = places(seed, KIND, 2 * count)
    lists: dict[str, list[str]] = {part: [] for part in SPLITS}
    cloudy_names: list[str] = []
    progress = Progress("twin of BigEarthNet", len(wanted), "patches")
    for number, place in enumerate(wanted):
        cloudy = number % _CLOUDY_EVERY == _CLOUDY_EVERY - 1
        patch = draw(seed, KIND, place, cloudy)
        name = f"S2A_MSIL2A_{patch.when:%Y%m%dT%H%M%S}_{place.col}_{place.row}"
        labels = [NAMES[code] for code in present(patch.corine)]
        target = folder / "BigEarthNet-v1.0" / name
        write_bands(target, name, patch)
        (target / f"{name}_labels_metadata.json").write_text(json.dumps(_metadata(patch, labels)) + "\n")
        # the authors' lists hold the sound patches alone
        if cloudy:
            cloudy_names.append(name)
        else:
            lists[split_of(place.town)].append(name)
        progress.advance()
    progress.close()
    for part, names in lists.items():
        write_atomic(folder / f"{part}.csv", "".join(f"{name}\n" for name in names))
    write_atomic(folder / "patches_with_cloud_and_shadow.csv", "".join(f"{name}\n" for name in cloudy_names))
    write_atomic(folder / "patches_with_seasonal_snow.csv", "")
    return {"patches": len(wanted), **{f"{part}_patches": len(names) for part, names in lists.items()}}


def write_bands(target: Path, name: str, patch: Patch) -> None:
    """Twelve one-band tifs at 10, 20 and 60 m, uncompressed, as the authors' are."""
    target.mkdir(parents=True, exist_ok=True)
    for band, numbers in patch.bands.items():
        write_tif(target / f"{name}_{band}.tif", numbers, patch)


def write_tif(file: Path, numbers: object, patch: Patch) -> None:
    """One band of a patch, uint16 (n, n), georeferenced."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    pixels = np.asarray(numbers)
    step = 10.0 * SIDE / pixels.shape[0]
    fields = {"driver": "GTiff", "width": pixels.shape[1], "height": pixels.shape[0], "count": 1, "dtype": "uint16"}
    with rasterio.open(
        file, "w", crs=f"EPSG:{patch.epsg}", transform=from_origin(patch.west, patch.north, step, step), **fields
    ) as sink:
        sink.write(pixels, 1)


def _metadata(patch: Patch, labels: list[str]) -> dict[str, object]:
    from rasterio.crs import CRS

    side = 10.0 * SIDE
    corners = {"ulx": patch.west, "uly": patch.north, "lrx": patch.west + side, "lry": patch.north - side}
    return {
        "labels": labels,
        "coordinates": {name: int(value) for name, value in corners.items()},
        "projection": CRS.from_epsg(patch.epsg).to_wkt(),
        "tile_source": f"S2A_MSIL1C_{patch.when:%Y%m%dT%H%M%S}_N0205_R000_TWIN.SAFE",
        "acquisition_date": f"{patch.when:%Y-%m-%d %H:%M:%S}",
    }
