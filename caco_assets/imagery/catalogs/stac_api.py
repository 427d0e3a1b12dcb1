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
from pystac import Link
from pystac_client import Client
from pystac_client.stac_api_io import StacApiIO

from caco_assets.core.errors import UserError
from caco_assets.core.redact import without_secrets
from caco_assets.imagery.catalogs.catalog import Box, Catalog, pieces
from caco_assets.imagery.catalogs.json_client import JsonClient, ServerError
from caco_assets.imagery.catalogs.response_cache import RequestCache
from caco_assets.imagery.catalogs.search_pages import all_items
from caco_assets.imagery.scenes.clear_sky import TEST_BANDS
from caco_assets.imagery.scenes.item_shape import PROPERTIES, used_parts
from caco_assets.imagery.scenes.periods import Interval
from caco_assets.imagery.scenes.scene_table import in_order, scenes_of, within
from caco_assets.imagery.scenes.stac_item import COMMON_NAMES, MalformedItemError
from caco_assets.settings import ServerLimits, StacApiSource

if TYPE_CHECKING:
    from pystac_client.conformance import ConformanceClasses

AHEAD = 4
"""Searches started before they are needed, as a multiple of the connections."""
SMALLEST_PAGE = 25
_TOO_LARGE = (413, 500, 502, 504)
"""Statuses of servers that limit the response size, for a page of too many items (Earth Search: 502 beyond 6 MB)."""
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
        limits: ServerLimits | None = None,
    ) -> None:
        """Ask the server for its conformance classes.

        Args:
            source: address and collection.
            bands: required of each item.
            max_scene_cloud: percent; where the server can, it leaves out cloudier scenes itself.
            cache: folder of responses; None: nothing is cached.
            client: of requests.
            limits: of one search and one response; None: the defaults.

        Raises:
            UserError: no server responds there, or it is not a STAC API.
        """
        self.refused: dict[str, str] = {}
        self._source, self._bands = source, bands
        self._cache = RequestCache(cache) if cache else None
        self._limits = limits or ServerLimits()
        self._json = client or JsonClient(connections=source.connections, limits=self._limits)
        try:
            self._client = Client.open(source.url, stac_io=_RetryingIO(self._json))
            self._question = self._ask_for(max_scene_cloud)
            # where the search is, before hundreds of them are started
            self._search({**self._question, "bbox": [0.0, 0.0, 1.0, 1.0]}, SMALLEST_PAGE)
        except UserError as error:
            raise UserError(f"imagery.source.url: no STAC API answers there ({error})") from error
        except Exception as error:  # pystac and its client have a class of error for each odd landing page
            raise UserError(f"imagery.source.url={without_secrets(source.url)}: not a STAC API ({type(error).__name__})") from error

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

    def _items(self, box: Box, span: Interval) -> list[Any]:
        start, end = (f"{moment:%Y-%m-%dT%H:%M:%S}Z" for moment in (span[0], span[1] + timedelta(microseconds=999_999)))
        question = {**self._question, "bbox": list(box), "datetime": f"{start}/{end}"}
        key = {**question, "url": self._source.url}
        if self._cache and (known := self._cache.get(key, span[1])) is not None:
            return known
        items, whole = [], True
        for item in self._pages(question):
            try:
                items.append(used_parts(item))
            except MalformedItemError:
                items.append(item)  # refused with its reason, like those of every catalog
                whole = False
        # what a broken server sent is not kept: once repaired, it is asked again
        if self._cache and whole:
            self._cache.put(key, items)
        return items

    def _pages(self, question: dict[str, Any]) -> list[Any]:
        """All items; a page that is too large for the server is requested again in smaller ones."""
        size = self._source.page_size
        while True:
            try:
                return all_items(self._json, self._search(question, size), self._limits)
            except ServerError as error:
                if error.status not in _TOO_LARGE or size <= SMALLEST_PAGE:
                    raise
                size = max(size // 4, SMALLEST_PAGE)

    def _search(self, question: dict[str, Any], size: int) -> requests.Request:
        """The request of the first page."""
        search = self._client.search(**question, limit=size)
        if search.method == "POST":
            return requests.Request("POST", search.url, json=search.get_parameters())
        return requests.Request("GET", search.url, params=search.get_parameters())

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
        """The response itself, already parsed as JSON; a link of a server never leads to a file of this machine.

        Raises:
            ServerError: the address is none of HTTP.
        """
        href = source.get_href() if isinstance(source, Link) else str(source)
        if not str(href).lower().startswith(("http://", "https://")):
            raise ServerError(f"{without_secrets(str(href))[:120]}: no address of HTTP; check imagery.source.url")
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
    return ["id", "type", "collection", "geometry", "bbox", *(f"properties.{name}" for name in PROPERTIES), *assets]
