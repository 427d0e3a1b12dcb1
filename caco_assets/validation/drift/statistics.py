"""Statistics of a vintage: its bands, land cover and cloudiness, measured on the same places in every vintage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts, Product, produce
from caco_assets.settings import Settings

RECIPE = "1"
_ONE = 10_000
"""Digital number of reflectance 1 in a chip."""
_NAMES = {"green": ("B03", "green"), "red": ("B04", "red"), "infrared": ("B08", "nir")}
"""Band used to measure land cover → its possible names."""
DENSE, SPARSE = 0.5, 0.25
"""NDVI above which land counts as densely and as sparsely vegetated: the usual thresholds, which need no training."""


def statistics(settings: Settings, quarantine: Product) -> Product:
    """Measure the archive of the vintage and write the figures to `data/statistics/VINTAGE.json`.

    Args:
        settings: of the profile.
        quarantine: the product that closes the archive.

    Raises:
        UserError: there is no chip in the archive.
    """
    paths, vintage = settings.paths, settings.vintage
    wanted = settings.validation.drift.places
    bands = settings.imagery.bands

    def make(file: Path) -> Facts:
        figures = {"vintage": vintage, **measured(settings)}
        file.write_text(json.dumps(figures, indent=1) + "\n")
        return {"vintage": vintage, "chips": figures["chips"]}

    return produce(
        f"statistics/{vintage}",
        folder_of(settings) / f"{vintage}.json",
        records=paths.records,
        recipe=RECIPE,
        inputs={"archive": quarantine.fingerprint, "places": wanted, "seed": settings.seed, "bands": bands},
        make=make,
    )


def folder_of(settings: Settings) -> Path:
    """Folder of the figures of all vintages."""
    return settings.paths.root / "data" / "statistics"


def measured(settings: Settings) -> dict[str, Any]:
    """The figures of the archive on disk.

    Returns:
        `places`, `chips`, `bands` (band → `mean` and `spread` (standard deviation) of all pixels in reflectance, `means` of the
        chips, `low` and `high` (their 1st and 99th percentile), `dead`: the share of chips in which it has one value), `cover`
        (kind → share; empty where a band is missing), `clear_sky` (share of the scenes tried that were clear).

    Raises:
        UserError: there is no chip.
    """
    from caco_assets.imagery.archive.shard import read_chip, read_index, shard_folders
    from caco_assets.validation.facts.quarantine import read_quarantine

    bands = settings.imagery.bands
    columns = ["location_id", "offset", "length", "sha256"]
    tables = [(shard, read_index(shard).select(columns)) for shard in shard_folders(settings.paths.archive)]
    names = {name for _, table in tables for name in table["location_id"].to_pylist()}
    # by the hash of its name: losing a place changes nothing for the others
    chosen = set(sorted(names, key=lambda name: _draw(settings.seed, name))[: settings.validation.drift.places])
    sums, cover = np.zeros((3, len(bands))), {}
    means, dead = [], np.zeros(len(bands))
    for shard, table in tables:
        for row in table.to_pylist():
            if row["location_id"] not in chosen:
                continue
            pixels = read_chip(shard, row)
            valid = pixels > 0
            reflectance = pixels / _ONE
            count = valid.sum(axis=(1, 2))
            total = (reflectance * valid).sum(axis=(1, 2))
            sums += [count, total, (reflectance**2 * valid).sum(axis=(1, 2))]
            means.append(total / np.maximum(count, 1))
            dead += pixels.min(axis=(1, 2)) == pixels.max(axis=(1, 2))
            for kind, number in covers(reflectance, bands).items():
                cover[kind] = cover.get(kind, 0) + number
    if not means:
        raise UserError(f"{settings.paths.archive}: no chip to measure; see the quarantine, `caco validate archive`")
    chips, everything = np.array(means), max(sum(cover.values()), 1)
    mean = sums[1] / np.maximum(sums[0], 1)
    spread = np.sqrt(np.maximum(sums[2] / np.maximum(sums[0], 1) - mean**2, 0))
    low, high = np.percentile(chips, [1, 99], axis=0)
    cloudy = int((read_quarantine(settings)["reason"] == "cloudy").sum())
    clear = sum(table.num_rows for _, table in tables)
    return {
        "places": len(chosen),
        "chips": len(means),
        "bands": {
            band: {
                **{name: round(float(value[k]), 6) for name, value in (("mean", mean), ("spread", spread))},
                **{"low": round(float(low[k]), 6), "high": round(float(high[k]), 6), "dead": float(dead[k]) / len(means)},
                "means": [round(float(value), 4) for value in chips[:, k]],
            }
            for k, band in enumerate(bands)
        },
        "cover": {kind: round(number / everything, 6) for kind, number in sorted(cover.items())},
        "clear_sky": round(clear / max(clear + cloudy, 1), 6),
    }


def covers(reflectance: np.ndarray, bands: tuple[str, ...]) -> Mapping[str, int]:
    """Pixels of each land cover in a chip (bands, H, W), by spectral indices: water, dense and sparse vegetation, bare.

    Water: NDWI above 0 (McFeeters 1996); vegetation: NDVI above `DENSE` and `SPARSE`. Rough, but the same for every vintage.
    """
    found = {what: next((bands.index(name) for name in names if name in bands), None) for what, names in _NAMES.items()}
    if None in found.values():
        return {}
    green, red, infrared = (reflectance[found[what]] for what in _NAMES)
    valid = (green > 0) & (red > 0) & (infrared > 0)
    growth = (infrared - red) / np.maximum(infrared + red, 1e-9)
    water = valid & (green > infrared)
    dense, sparse = (valid & ~water & (growth > least) for least in (DENSE, SPARSE))
    counts = {"water": water, "dense": dense, "sparse": sparse & ~dense, "bare": valid & ~water & ~sparse}
    return {kind: int(mask.sum()) for kind, mask in counts.items()}


def _draw(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()
