"""Opens the catalog that the settings name."""

from __future__ import annotations

from pathlib import Path

from caco_assets.imagery.catalogs.catalog import Catalog
from caco_assets.imagery.catalogs.static import StaticCatalog
from caco_assets.settings import CatalogSource, Settings, StacApiSource


def open_catalog(settings: Settings) -> Catalog:
    """The catalog that the settings name."""
    imagery = settings.imagery
    if isinstance(imagery.source, StacApiSource):
        from caco_assets.imagery.catalogs.stac_api import StacApi

        cache = settings.paths.cache / "stac_api"
        return StacApi(imagery.source, imagery.bands, imagery.max_scene_cloud, cache, limits=imagery.limits)
    source = imagery.source
    path = source.path if isinstance(source, CatalogSource) else settings.paths.catalog
    return StaticCatalog.open(path, imagery.bands, settings.paths.cache)


def catalog_folder(settings: Settings) -> Path | None:
    """The folder that relative hrefs start at; None: the catalog is not on this machine."""
    source = settings.imagery.source
    if isinstance(source, StacApiSource):
        return None
    if not isinstance(source, CatalogSource):
        return settings.paths.catalog
    return source.path.parent if source.path.suffix == ".parquet" else source.path
