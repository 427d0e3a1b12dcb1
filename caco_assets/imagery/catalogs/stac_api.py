"""A STAC API as a catalog: one paged search for each cell and period, several at a time, each cached on disk."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import requests
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from caco_assets.core.errors import UserError
from caco_assets.core.redact import without_secrets
from caco_assets.imagery.catalogs.catalog import Box, Catalog, pieces
from caco_assets.imagery.catalogs.json_client import JsonClient, ServerError
from caco_assets.imagery.catalogs.response_cache import RequestCache
from caco_assets.imagery.scenes.clear_sky import TEST_BANDS
from caco_assets.imagery.scenes.periods import Interval
from caco_assets.imagery.scenes.scene_table import in_order, scenes_of, within
from caco_assets.imagery.scenes.stac_item import BASELINE_KEYS, COMMON_NAMES, NAME_KEYS, TYPE_KEYS
from caco_assets.settings import StacApiSource

if TYPE_CHECKING:
    from pystac_client.conformance import ConformanceClasses

AHEAD = 4
"""Searches started before they are needed, as a multiple of the connections."""
SMALLEST_PAGE = 25
_TOO_LARGE = (413, 500, 502, 504)
"""Statuses of servers that limit the response size, for a page of too many items (Earth Search: 502 beyond 6 MB)."""
_PROPERTIES = (
    *("datetime", "eo:cloud_cover", "proj:code", "proj:epsg", "earthsearch:boa_offset_applied", "sentinel:boa_offset_applied"),
    *(*BASELINE_KEYS, *NAME_KEYS, *TYPE_KEYS),
)
_SIZES = ("", "_10m", "_20m", "_60m")


class StacApi(Catalog):
    """A STAC API, searched over HTTP."""

    def __init__(
        self,
        source: StacApiSource,
        bands: tuple[str, ...],
        max_scene_cloud: float = 100.0,
        cache: Path | None = None,
        client: JsonClient | None = None,
    ) -> None:
        """Ask the server for its conformance classes.

        Args:
            source: address and collection.
            bands: required of each item.
            max_scene_cloud: percent; where the server can, it leaves out cloudier scenes itself.
            cache: folder of responses; None: nothing is cached.
            client: of requests.

        Raises:
            UserError: no server responds there, or it is not a STAC API.
        """
        self.refused: dict[str, str] = {}
        self._source, self._bands = source, bands
        self._cache = RequestCache(cache) if cache else None
        self._io = _RetryingIO(client or JsonClient(connections=source.connections))
        try:
            self._client = Client.open(source.url, stac_io=self._io)
        except UserError as error:
            raise UserError(f"imagery.source.url: no STAC API answers there ({error})") from error
        except (APIError, KeyError, TypeError, ValueError, OSError) as error:
            raise UserError(f"imagery.source.url={without_secrets(source.url)}: not a STAC API ({type(error).__name__})") from error
        self._question = self._ask_for(max_scene_cloud)

    def search_many(self, boxes: Sequence[Box], spans: Sequence[Interval]) -> Iterator[pa.Table]:
        """See `Catalog.search_many`."""
        tasks = itertools.product(boxes, spans)
        with ThreadPoolExecutor(self._source.connections) as pool:
            try:
                running: deque[Future[pa.Table]] = deque()
                for _ in boxes:
                    room = AHEAD * self._source.connections + len(spans) - len(running)
                    running.extend(pool.submit(self._scenes, *task) for task in itertools.islice(tasks, room))
                    yield in_order(pa.concat_tables([running.popleft().result() for _ in spans]))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _scenes(self, box: Box, span: Interval) -> pa.Table:
        items = itertools.chain.from_iterable(self._items(piece, span) for piece in pieces(box))
        # a server's interval is closed at both ends
        return within(scenes_of(items, self._bands, self.refused, local=False), [span])

    def _items(self, box: Box, span: Interval) -> list[dict[str, Any]]:
        start, end = (f"{moment:%Y-%m-%dT%H:%M:%S}Z" for moment in (span[0], span[1] + timedelta(microseconds=999_999)))
        question = {**self._question, "bbox": list(box), "datetime": f"{start}/{end}"}
        key = {**question, "url": self._source.url}
        if self._cache and (known := self._cache.get(key, span[1])) is not None:
            return known
        items = [_needed(item) for item in self._pages(question)]
        if self._cache:
            self._cache.put(key, items)
        return items

    def _pages(self, question: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """All items; a page that is too large for the server is requested again in smaller ones."""
        size = self._source.page_size
        while True:
            try:
                yield from list(self._client.search(**question, limit=size).items_as_dicts())
                return
            except ServerError as error:
                if error.status not in _TOO_LARGE or size <= SMALLEST_PAGE:
                    raise
                size = max(size // 4, SMALLEST_PAGE)

    def _ask_for(self, max_scene_cloud: float) -> dict[str, Any]:
        """The part of a search that is the same for all cells."""
        question: dict[str, Any] = {"collections": [self._source.collection]}
        if self._can("FIELDS"):
            question["fields"] = {"include": _fields(self._bands), "exclude": ["links"]}
        if max_scene_cloud < 100 and self._can("FILTER"):
            cloud = {"property": "eo:cloud_cover"}
            unknown, low = {"op": "isNull", "args": [cloud]}, {"op": "<=", "args": [cloud, max_scene_cloud]}
            question |= {"filter": {"op": "or", "args": [low, unknown]}, "filter_lang": "cql2-json"}
        elif max_scene_cloud < 100 and self._source.provider and self._can("QUERY"):
            # the query extension drops scenes of unknown cloud cover: only where it is known that there are none
            question["query"] = {"eo:cloud_cover": {"lte": max_scene_cloud}}
        return question

    def _can(self, what: str) -> bool:
        from pystac_client.conformance import ConformanceClasses

        kind: ConformanceClasses = ConformanceClasses.get_by_name(what)
        return self._client.conforms_to(kind)


class _RetryingIO(StacApiIO):
    """pystac-client's requests, sent with our retries."""

    def __init__(self, client: JsonClient) -> None:
        super().__init__()
        self._patient = client

    def read_json(self, source: Any, *args: Any, **kwargs: Any) -> Any:
        """The response itself, already parsed as JSON."""
        return self.read_text(source, *args, **kwargs)

    def request(self, href: str, method: str | None = None, headers: Any = None, parameters: Any = None) -> Any:
        """See `StacApiIO.request`.

        Raises:
            ServerError: see `JsonClient.ask`.
        """
        method = (method or "GET").upper()
        body = {"json": parameters} if method == "POST" else {"params": parameters}
        return self._patient.ask(requests.Request(method, href, headers=headers, **body))


def _fields(bands: tuple[str, ...]) -> list[str]:
    """The parts of an item that are used."""
    if not set(bands) <= set(COMMON_NAMES.values()):
        assets = ["assets"]
    else:
        wanted = {*bands, *TEST_BANDS, "SCL"}
        keys = [key for common, band in COMMON_NAMES.items() if band in wanted for key in (band, common)]
        assets = ["assets.data", *(f"assets.{key}{size}" for key in keys for size in _SIZES)]
    return ["id", "type", "collection", "geometry", "bbox", *(f"properties.{name}" for name in _PROPERTIES), *assets]


def _needed(item: dict[str, Any]) -> dict[str, Any]:
    """An item without its unused parts; a server that cannot select fields sends everything."""
    kept = {key: item.get(key) for key in ("id", "collection", "geometry", "properties")}
    properties = {name: value for name, value in item["properties"].items() if name in _PROPERTIES}
    facts = ("href", "gsd", "bands", "eo:bands", "raster:bands", "nodata", "scale", "offset", "spatial_resolution")
    assets = {
        key: {name: value for name, value in asset.items() if name in facts or name.startswith("raster:")}
        for key, asset in item["assets"].items()
        if {"bands", "eo:bands"} & asset.keys() or key.split("_")[0].lower() in _KEYS
    }
    return {**kept, "properties": properties, "assets": assets}


_KEYS = {key.lower() for pair in COMMON_NAMES.items() for key in pair}
