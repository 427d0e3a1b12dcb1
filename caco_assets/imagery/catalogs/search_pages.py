"""Reads the pages of a STAC API search, whatever the server answers: whole pages only, no page twice, all within bounds."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from caco_assets.core.redact import without_secrets
from caco_assets.imagery.catalogs.json_client import JsonClient, ServerError
from caco_assets.imagery.scenes.item_shape import CONTROL, item_name
from caco_assets.settings import ServerLimits
from caco_assets.settings.imagery_limits import MB

_METHODS = ("GET", "POST")


def all_items(client: JsonClient, first: requests.Request, limits: ServerLimits) -> list[Any]:
    """The items of all pages of a search, as JSON, unchecked one by one.

    Args:
        client: sends the requests.
        first: the request of the first page.
        limits: of one search.

    Raises:
        ServerError: a page cannot be had or is no page of items, the pages lead back to one that was read, or a limit is exceeded.
    """
    request, items, size, pages = first, [], 0, 0
    names: set[str] = set()
    asked: set[str] = set()
    end = time.monotonic() + 60 * limits.search_minutes
    while True:
        address = without_secrets(str(request.url))
        answer = client.answer(request, complaint=_no_page)
        pages, size = pages + 1, size + answer.size
        asked.add(_identity(request))
        page: list[Any] = answer.content["features"]
        found = {item_name(item) for item in page}
        following = _next(answer.content, request) if page else None
        if following is not None:
            if _identity(following) in asked or found <= names:
                raise ServerError(
                    f"{address}: page {pages} of the search brings nothing new, and its next link leads on; the server's paging is "
                    "broken: tell its operator, or try another imagery.source.page_size"
                )
            _check(limits, address, pages + 1, len(items) + len(page), size, end)
        items += page
        names |= found
        if following is None:
            return items
        request = following


def _check(limits: ServerLimits, address: str, pages: int, items: int, size: int, end: float) -> None:
    for name, much, most, what in (
        ("pages", pages, limits.pages, "pages"),
        ("items", items, limits.items, "items"),
        ("search_mb", size / MB, limits.search_mb, "MB"),
    ):
        if much > most:
            raise ServerError(f"{address}: one search has more than {most:g} {what}; raise imagery.limits.{name} if that is so")
    if time.monotonic() > end:
        minutes = limits.search_minutes
        raise ServerError(
            f"{address}: one search takes more than {minutes:g} minutes; run the same command again later, or raise "
            "imagery.limits.search_minutes if that is right"
        )


def _no_page(content: Any) -> str | None:
    """What is wrong with a response that should be a page of items: an error object with status 200 is none."""
    if not isinstance(content, dict) or content.get("type", "FeatureCollection") != "FeatureCollection":
        return "answers with something that is no page of items"
    if not isinstance(content.get("features"), list):
        return "answers with something that is no page of items"
    links = content.get("links") or []
    if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
        return "answers with a page whose links are none"
    return None


def _next(page: Mapping[str, Any], request: requests.Request) -> requests.Request | None:
    """The request of the next page (STAC API, "Paging"); None on the last one.

    Raises:
        ServerError: the link is not one that can be asked over HTTP.
    """
    link = next((link for link in page.get("links") or [] if link.get("rel") == "next"), None)
    if link is None:
        return None
    address = without_secrets(str(request.url))
    method, body, headers = link.get("method") or "GET", link.get("body") or {}, link.get("headers") or {}
    try:
        href = urljoin(str(request.url), link["href"])
        good = urlsplit(href).scheme in ("http", "https") and str(method).upper() in _METHODS
        good &= not CONTROL.search(link["href"]) and isinstance(body, dict) and isinstance(headers, dict)
        good = good and all(isinstance(part, str) for pair in headers.items() for part in pair)
    except (KeyError, TypeError, ValueError, AttributeError):
        good, href = False, ""
    if not good:
        raise ServerError(f"{address}: the next link of a page is none that can be asked; the server's paging is broken")
    if str(method).upper() == "GET":
        return requests.Request("GET", href, headers=headers)
    earlier = request.json if isinstance(request.json, dict) else {}
    merged = {**earlier, **body} if link.get("merge") else body
    return requests.Request("POST", href, headers=headers, json=merged)


def _identity(request: requests.Request) -> str:
    return json.dumps([request.method, str(request.url), request.params or None, request.json], sort_keys=True, default=str)
