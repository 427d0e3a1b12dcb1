"""Where scenes are looked up: a static STAC catalog on disk, or a STAC API, behind one protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from caco_assets.errors import UserError
from caco_assets.imagery.clear import TEST_BANDS
from caco_assets.imagery.periods import Interval
from caco_assets.imagery.scene import ItemRefusedError, Scene, scene_from_item
from caco_assets.settings import CatalogSource, Settings, StacApiSource

ITEMS = "items.parquet"
"""The catalog's items as stac-geoparquet; relative hrefs in it start at the catalog's folder."""
Box = tuple[float, float, float, float]


class Catalog(Protocol):
    """Finds scenes."""

    refused: dict[str, str]
    """Items met so far that cannot serve: id → reason."""

    def search(self, box: Box, interval: Interval) -> list[Scene]:
        """Scenes whose footprint meets the box (west, south, east, north, degrees) and whose time lies in the half-open interval.

        Sorted by time, then id.
        """
        ...


class StaticCatalog:
    """Items read once from disk, with a spatial index."""

    def __init__(self, items: Iterable[dict[str, Any]], bands: tuple[str, ...]) -> None:
        import numpy as np
        import shapely

        self.refused: dict[str, str] = {}
        self._scenes = sorted(_scenes(items, bands, self.refused), key=_order)
        self._tree = shapely.STRtree(np.array([scene.geometry for scene in self._scenes], object))

    @classmethod
    def open(cls, folder: Path, bands: tuple[str, ...]) -> StaticCatalog:
        """Read `items.parquet` of the folder, or, where there is none, the items linked from its `catalog.json`.

        Raises:
            UserError: the folder holds neither.
        """
        if (folder / ITEMS).exists():
            return cls(read_items(folder / ITEMS), bands)
        for name in ("catalog.json", "collection.json"):
            if (folder / name).exists():
                return cls(walk_items(folder / name), bands)
        raise UserError(f"{folder}: no catalog there (neither {ITEMS} nor catalog.json); make it with `caco catalog make`")

    def search(self, box: Box, interval: Interval) -> list[Scene]:
        """See `Catalog.search`."""
        import shapely

        hits = (self._scenes[row] for piece in pieces(box) for row in self._tree.query(shapely.box(*piece), predicate="intersects"))
        unique = {scene.item_id: scene for scene in hits if interval[0] <= scene.datetime < interval[1]}
        return sorted(unique.values(), key=_order)


class StacApi:
    """A STAC API, searched over HTTP."""

    def __init__(self, source: StacApiSource, bands: tuple[str, ...]) -> None:
        from pystac_client import Client
        from pystac_client.exceptions import APIError

        self.refused: dict[str, str] = {}
        self._source, self._bands = source, bands
        try:
            self._client = Client.open(source.url)
        except (APIError, OSError) as error:
            raise UserError(f"imagery.source.url={source.url}: no STAC API answers there ({_line(error)})") from error

    def search(self, box: Box, interval: Interval) -> list[Scene]:
        """See `Catalog.search`.

        Raises:
            UserError: the server answers with an error.
        """
        from pystac_client.exceptions import APIError

        found: dict[str, Scene] = {}
        for piece in pieces(box):
            search = self._client.search(collections=[self._source.collection], bbox=piece, datetime=list(interval))
            try:
                items = list(search.items_as_dicts())
            except (APIError, OSError) as error:
                raise UserError(f"{self._source.url}: the search failed ({_line(error)}); run the same command again") from error
            found |= {scene.item_id: scene for scene in _scenes(items, self._bands, self.refused)}
        # a server's interval is closed at both ends
        return sorted((scene for scene in found.values() if interval[0] <= scene.datetime < interval[1]), key=_order)


def open_catalog(settings: Settings) -> Catalog:
    """The catalog that the settings name."""
    source = settings.imagery.source
    if isinstance(source, StacApiSource):
        return StacApi(source, settings.imagery.bands)
    return StaticCatalog.open(catalog_folder(settings), settings.imagery.bands)


def catalog_folder(settings: Settings) -> Path:
    """The folder that relative hrefs start at."""
    source = settings.imagery.source
    return source.path if isinstance(source, CatalogSource) else settings.paths.catalog


def read_items(path: Path) -> Iterator[dict[str, Any]]:
    """Items as JSON from a stac-geoparquet file."""
    import pyarrow.parquet as pq
    from stac_geoparquet.arrow import stac_table_to_items

    yield from stac_table_to_items(pq.read_table(path))


def walk_items(path: Path) -> Iterator[dict[str, Any]]:
    """Items as JSON below a `catalog.json` or `collection.json`; hrefs become absolute."""
    import pystac

    for item in pystac.read_file(path).get_items(recursive=True):  # pyright: ignore[reportAttributeAccessIssue]
        yield item.make_asset_hrefs_absolute().to_dict(include_self_link=False, transform_hrefs=False)


def pieces(box: Box) -> list[Box]:
    """A box with west > east reaches across the antimeridian: its two parts."""
    west, south, east, north = box
    return [box] if west <= east else [(west, south, 180.0, north), (-180.0, south, east, north)]


def _scenes(items: Iterable[dict[str, Any]], bands: tuple[str, ...], refused: dict[str, str]) -> Iterator[Scene]:
    for item in items:
        try:
            yield scene_from_item(item, bands, TEST_BANDS)
        except ItemRefusedError as error:
            refused[str(item["id"])] = str(error)


_order: Callable[[Scene], tuple] = lambda scene: (scene.datetime, scene.item_id)  # noqa: E731


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
