"""Writes one acquisition as a provider of Sentinel-2 serves it: a COG per band and a STAC item."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
import shapely
from rasterio.transform import from_origin

from caco_assets.core.atomic import write_atomic
from caco_assets.synthetic.catalog.scene_plan import Tile
from caco_assets.synthetic.earth.earth import BASELINE_0400, GSD, OFFSET, Earth, Window, digital_numbers, enlarged
from caco_assets.synthetic.earth.weather import Acquisition

COLLECTION = "sentinel-2-l2a-embedded-earth"
_BASELINES = ((datetime(2024, 7, 23, tzinfo=UTC), "05.11"), (datetime(2022, 12, 6, tzinfo=UTC), "05.09"), (BASELINE_0400, "04.00"))
"""First day and number of some processing baselines, newest first; before them 03.01."""
EXTENSIONS = [
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/grid/v1.1.0/schema.json",
    "https://stac-extensions.github.io/view/v1.0.0/schema.json",
]
# Common name, centre and width in micrometres (Sentinel-2A, as Earth Search publishes them).
_EO: dict[str, tuple[str, float, float]] = {
    "B01": ("coastal", 0.443, 0.027),
    "B02": ("blue", 0.490, 0.098),
    "B03": ("green", 0.560, 0.045),
    "B04": ("red", 0.665, 0.038),
    "B05": ("rededge", 0.704, 0.019),
    "B06": ("rededge", 0.740, 0.018),
    "B07": ("rededge", 0.783, 0.028),
    "B08": ("nir", 0.842, 0.145),
    "B8A": ("nir08", 0.865, 0.033),
    "B09": ("nir09", 0.945, 0.026),
    "B11": ("swir16", 1.61, 0.143),
    "B12": ("swir22", 2.19, 0.242),
}
_COG = {"driver": "COG", "compress": "DEFLATE", "level": 1, "blocksize": 256, "num_threads": 1, "overview_resampling": "nearest"}
_COLUMN_LETTERS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_ROW_LETTERS = "ABCDEFGHJKLMNPQRSTUV"
_BAND_LETTERS = "CDEFGHJKLMNPQRSTUVWX"


def baseline(when: datetime) -> str:
    """Processing baseline of a product sensed on a date."""
    return next((number for start, number in _BASELINES if when >= start), "03.01")


def mgrs_square(lat: float, window: Window) -> str:
    """The 100 km square of the military grid that holds the window's centre, as in `grid:code` (`31TDG`)."""
    zone = window.epsg % 100
    east, north = window.west + 5.0 * window.width, window.north - 5.0 * window.height
    column = _COLUMN_LETTERS[(zone - 1) % 3][min(max(int(east // 100_000) - 1, 0), 7)]
    row = _ROW_LETTERS[(int(north // 100_000) + (0 if zone % 2 else 5)) % 20]
    band = _BAND_LETTERS[min(max(math.floor((lat + 80.0) / 8.0), 0), 19)]
    return f"{zone:02d}{band}{column}{row}"


def item_id(tile: Tile, look: Acquisition) -> str:
    """Unique name of an acquisition."""
    return f"S2_{tile.name}_{look.when:%Y%m%dT%H%M%S}_N{baseline(look.when).replace('.', '')}"


def write_cog(path: Path, pixels: np.ndarray, window: Window, gsd: int, **options: Any) -> None:
    """One band as a cloud-optimised GeoTIFF, nodata 0."""
    with rasterio.open(
        path,
        "w",
        width=pixels.shape[1],
        height=pixels.shape[0],
        count=1,
        dtype=pixels.dtype.name,
        crs=f"EPSG:{window.epsg}",
        transform=from_origin(window.west, window.north, gsd, gsd),
        nodata=0,
        **{**_COG, **options},
    ) as target:
        target.write(pixels, 1)


def write_scene(folder: Path, tile: Tile, earth: Earth, look: Acquisition) -> Path:
    """Render an acquisition and write its COGs and, last, its item; a scene whose item stands is finished and is left alone.

    Args:
        folder: of the collection; the scene gets a folder of its own name.
        tile: footprint.
        earth: the tile's region with its events.
        look: the overpass.

    Returns:
        Path of the item.
    """
    name = item_id(tile, look)
    path = folder / name / f"{name}.json"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    image = earth.render(tile.window, look)
    for band, reflectance in image.bands.items():
        numbers = digital_numbers(reflectance, look.when, _at(image.nodata, GSD[band]) if image.nodata.any() else None)
        write_cog(path.parent / f"{band}.tif", numbers, tile.window, GSD[band], predictor="2")
    write_cog(path.parent / "SCL.tif", image.scl, tile.window, 20)
    write_atomic(path, json.dumps(item(tile, look, image.cloud_cover), indent=1) + "\n")
    return path


def _at(nodata: np.ndarray, gsd: int) -> np.ndarray:
    """A mask at 20 m on the grid of another pixel size."""
    return enlarged(nodata, 2) if gsd == 10 else nodata[:: gsd // 20, :: gsd // 20]


def item(tile: Tile, look: Acquisition, cloud_cover: float) -> dict[str, Any]:
    """The STAC item of an acquisition as JSON, hrefs relative to itself."""
    window = tile.window
    east, south = window.west + 10.0 * window.width, window.north - 10.0 * window.height
    ring = [(window.west, south), (east, south), (east, window.north), (window.west, window.north)]
    lon, lat = rasterio.warp.transform(f"EPSG:{window.epsg}", "EPSG:4326", *zip(*ring, strict=True))[:2]
    geometry, bbox = _footprint(lon, lat)
    assets = {band: _asset(band, window, gsd, "uint16", {"scale": 0.0001, "offset": _offset(look)}) for band, gsd in GSD.items()}
    assets["SCL"] = _asset("SCL", window, 20, "uint8", {})
    up = {"type": "application/json"}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": EXTENSIONS,
        "id": item_id(tile, look),
        "collection": COLLECTION,
        "geometry": geometry,
        "bbox": bbox,
        "properties": {
            "datetime": look.when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "platform": "embedded-earth",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "gsd": 10,
            "eo:cloud_cover": round(cloud_cover, 4),
            "proj:code": f"EPSG:{window.epsg}",
            "proj:bbox": [window.west, south, east, window.north],
            "grid:code": f"MGRS-{mgrs_square(tile.region.lat, window)}",
            "view:sun_elevation": look.sun_elevation,
            "view:sun_azimuth": look.sun_azimuth,
            "s2:processing_baseline": baseline(look.when),
            "s2:product_type": "S2MSI2A",
        },
        "links": [
            {"rel": "root", "href": "../../catalog.json", **up},
            {"rel": "parent", "href": "../collection.json", **up},
            {"rel": "collection", "href": "../collection.json", **up},
        ],
        "assets": assets,
    }


def _offset(look: Acquisition) -> float:
    return -OFFSET / 10_000 if look.when >= BASELINE_0400 else 0.0


def _asset(name: str, window: Window, gsd: int, dtype: str, meaning: dict[str, float]) -> dict[str, Any]:
    step = gsd // 10
    asset: dict[str, Any] = {
        "href": f"./{name}.tif",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"] if name in _EO else ["data", "classification"],
        "gsd": gsd,
        "proj:shape": [window.height // step, window.width // step],
        "proj:transform": [gsd, 0, window.west, 0, -gsd, window.north],
        "raster:bands": [{"data_type": dtype, "nodata": 0, "spatial_resolution": gsd, **meaning}],
    }
    if name in _EO:
        common, centre, width = _EO[name]
        asset["eo:bands"] = [{"name": name, "common_name": common, "center_wavelength": centre, "full_width_half_max": width}]
    return asset


def _footprint(lon: list[float], lat: list[float]) -> tuple[dict[str, Any], list[float]]:
    """Geometry and bbox of a ring; one across the antimeridian is cut in two there, as RFC 7946 asks."""
    lon, lat = [round(value, 7) for value in lon], [round(value, 7) for value in lat]
    if max(lon) - min(lon) <= 180:
        ring = [[x, y] for x, y in zip(lon, lat, strict=True)]
        return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}, [min(lon), min(lat), max(lon), max(lat)]
    shape = shapely.Polygon([(x % 360.0, y) for x, y in zip(lon, lat, strict=True)])
    west, south, east, north = shape.bounds
    halves = shape.intersection(shapely.box(west, south, 180.0, north)), shape.intersection(shapely.box(180.0, south, east, north))
    rings = [[[[x - 360.0 * k, y] for x, y in shapely.get_coordinates(half).tolist()]] for k, half in enumerate(halves)]
    return {"type": "MultiPolygon", "coordinates": rings}, [west, south, east - 360.0, north]
