"""A tiny Earth: one small tile near 42° N, 3° E with a few dated scenes, written as a provider would."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from shapely.geometry import mapping

from caco_assets.imagery.geometry.footprint import raster_footprint
from caco_assets.sampling.stage import sample
from caco_assets.settings import CatalogSource, Sampling, Settings, load_settings

EPSG = 32631
LEFT, TOP, SIDE = 498_000.0, 4_651_020.0, 4_800.0
BANDS = ("B02", "B03", "B04", "B08")


def write_tif(path: Path, layers: np.ndarray, left: float, top: float, resolution: float, **profile) -> None:
    """A GeoTIFF of (bands, H, W), north up; 32 px blocks, so that a small file has several."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = layers.shape
    settings = {"driver": "GTiff", "crs": f"EPSG:{EPSG}", "transform": Affine(resolution, 0, left, 0, -resolution, top)}
    settings |= {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", "dtype": layers.dtype}
    with rasterio.open(path, "w", **{**settings, **profile}, count=count, height=height, width=width) as raster:
        raster.write(layers)


@dataclass
class TinyEarth:
    """Scenes are added, then the catalog is written."""

    folder: Path
    items: list[dict] = field(default_factory=list)

    def scene(
        self,
        date: str,
        *,
        time: str = "10:30:00",
        reflectance: float = 0.1,
        cloud: float | None = 5.0,
        scl: int = 4,
        baseline: str = "02.14",
    ) -> str:
        """One clear scene unless told otherwise (`scl=9`: cloud); returns its id. Pixels: `reflectance` plus a gradient."""
        item_id = f"S2_{date.replace('-', '')}" + ("" if time == "10:30:00" else f"T{time.replace(':', '')}")
        home, shift = self.folder / item_id, 1000 if baseline >= "04.00" else 0
        fine, coarse = int(SIDE / 10), int(SIDE / 20)
        ramp = np.arange(fine * fine).reshape(fine, fine) % 97
        assets = {}
        for number, band in enumerate(BANDS):
            numbers = (reflectance * 10_000 + 100 * number + ramp + shift).astype(np.uint16)
            write_tif(home / f"{band}.tif", numbers[None], LEFT, TOP, 10)
            raster = {"scale": 1e-4, "offset": -shift / 10_000, "nodata": 0}
            assets[band] = {"href": f"./{item_id}/{band}.tif", "type": "image/tiff", "raster:bands": [raster]}
        write_tif(home / "SCL.tif", np.full((1, coarse, coarse), scl, np.uint8), LEFT, TOP, 20)
        assets["SCL"] = {"href": f"./{item_id}/SCL.tif", "type": "image/tiff"}
        footprint = raster_footprint((LEFT, TOP - SIDE, LEFT + SIDE, TOP), f"EPSG:{EPSG}")
        moment = f"{date}T{time}Z"
        properties = {"datetime": moment, "proj:code": f"EPSG:{EPSG}", "s2:processing_baseline": baseline}
        if cloud is not None:
            properties["eo:cloud_cover"] = cloud
        self.items.append(
            {
                "type": "Feature", "stac_version": "1.1.0", "stac_extensions": [], "id": item_id, "collection": "s2", "links": [],
                "geometry": mapping(footprint), "bbox": list(footprint.bounds), "properties": properties, "assets": assets,
            }
        )  # fmt: skip
        return item_id

    def write(self) -> Path:
        """Write `items.parquet`; returns the catalog's folder."""
        from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

        self.folder.mkdir(parents=True, exist_ok=True)
        to_parquet(parse_stac_items_to_arrow(json.loads(json.dumps(self.items))), self.folder / "items.parquet")
        return self.folder


@pytest.fixture
def tiny_earth(tmp_path: Path) -> TinyEarth:
    return TinyEarth(tmp_path / "earth")


DATES = ("2021-12-10", "2022-04-05", "2022-08-20", "2025-12-11", "2026-04-06", "2026-08-21")
"""One in each of three seasons of both periods (vintage 2026-10, gap 4 years)."""


def earth_settings(home: Path, catalog: Path, places: int = 4) -> Settings:
    """The tiny profile over the tiny Earth, its places on a grid inside the tile."""
    settings = load_settings("tiny", home=home)
    region = (2.990, 41.985, 3.020, 42.0)
    sampling = Sampling(strategy="grid", places=places, cities=5, region=region, min_distance_km=0.8, places_per_shard=3)
    imagery = settings.imagery.model_copy(update={"source": CatalogSource(path=catalog), "seasons": 3})
    return settings.model_copy(update={"sampling": sampling, "imagery": imagery})


@pytest.fixture
def over(tmp_path: Path):
    """Settings over a catalog, in a home of the test's own, with the locations drawn."""

    def make(catalog: Path, home: str = "home", places: int = 4) -> Settings:
        settings = earth_settings(tmp_path / home, catalog, places)
        sample(settings)
        return settings

    return make


@pytest.fixture
def tif():
    """Writes a GeoTIFF on the tiny Earth's tile: `tif(path, layers, left, top, resolution)`."""
    return write_tif


@pytest.fixture
def six_dates(over, tiny_earth: TinyEarth) -> Settings:
    """A clear scene in every season, four places in two shards, locations drawn."""
    for number, date in enumerate(DATES):
        tiny_earth.scene(date, reflectance=0.05 + 0.01 * number, baseline="04.00" if date > "2022-01-25" else "03.01")
    return over(tiny_earth.write())
