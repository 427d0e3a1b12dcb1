"""Embeddings of the tiles of an image, written as GeoParquet (footprint and vector), CSV or npz."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caco_assets.core.errors import UserError

if TYPE_CHECKING:
    import geopandas as gpd
    import rasterio

SUFFIXES = (".parquet", ".csv", ".npz")


@dataclass(frozen=True)
class Embeddings:
    """Tiles of an image, row by row from its upper left corner."""

    vectors: np.ndarray
    """float32 (T, D)."""
    rows: np.ndarray
    """int32 (T,): first pixel row of each tile."""
    columns: np.ndarray
    """int32 (T,): first pixel column."""
    nodata: np.ndarray
    """float32 (T,): share of a tile's pixels that are nodata in any band (0 where the image has no nodata value)."""
    tile: int
    transform: rasterio.Affine
    crs: rasterio.CRS | None
    """None: of an array; the coordinates are pixel columns and rows, downwards."""

    def frame(self) -> gpd.GeoDataFrame:
        """One row per tile: `row`, `column`, `nodata_share`, `embedding` (list of float32), `geometry` in the CRS of the image."""
        import geopandas as gpd
        from shapely.geometry import Polygon

        side = self.tile
        corners = ((0, 0), (side, 0), (side, side), (0, side))
        footprints = [
            Polygon([_at(self.transform, column + x, row + y) for x, y in corners])
            for row, column in zip(self.rows.tolist(), self.columns.tolist(), strict=True)
        ]
        fields = {"row": self.rows, "column": self.columns, "nodata_share": self.nodata, "embedding": list(self.vectors)}
        return gpd.GeoDataFrame(fields, geometry=footprints, crs=self.crs)

    def write(self, path: Path) -> None:
        """Write `.parquet` (GeoParquet), `.csv` (center coordinates, one column per feature) or `.npz`.

        Raises:
            UserError: another suffix.
        """
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise UserError(f"{path}: {path.suffix or 'no suffix'} is not an embeddings format; use {', '.join(SUFFIXES)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".parquet":
            self.frame().to_parquet(path, index=False)
        elif suffix == ".npz":
            places = {"row": self.rows, "column": self.columns, "nodata_share": self.nodata}
            georeference = {
                "transform": np.array(tuple(self.transform)[:6]),
                "crs": self.crs.to_wkt() if self.crs else "",
                "tile": self.tile,
            }
            np.savez_compressed(path, embedding=self.vectors, **places, **georeference)
        else:
            self._table().to_csv(path, index=False)

    def _table(self) -> gpd.pd.DataFrame:
        import pandas as pd

        half = self.tile / 2
        x, y = _at(self.transform, self.columns + half, self.rows + half)
        places = {"row": self.rows, "column": self.columns, "x": x, "y": y, "nodata_share": self.nodata}
        features = {f"f{index}": self.vectors[:, index] for index in range(self.vectors.shape[1])}
        return pd.DataFrame({**places, **features})


def _at[T: (float, np.ndarray)](transform: rasterio.Affine, column: T, row: T) -> tuple[T, T]:
    """Coordinates of a pixel position, or of arrays of them."""
    return transform.a * column + transform.b * row + transform.c, transform.d * column + transform.e * row + transform.f
