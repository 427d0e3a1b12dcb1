"""Walks a static STAC catalog on disk from `catalog.json` along its links to its items."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from caco_assets.core.errors import UserError, one_line
from caco_assets.core.foreign_files import read_json
from caco_assets.imagery.scenes.item_shape import CONTROL

_FOLLOWED = ("child", "item")


def walk_items(path: Path, refused: dict[str, str]) -> Iterator[Any]:
    """The items as JSON below a `catalog.json` or `collection.json`; hrefs become absolute.

    Each document is read once, however often and in whatever circle the links name it.

    Args:
        path: of the first document.
        refused: receives the items whose document cannot be read, by file, with the reason.

    Raises:
        UserError: the document of a catalog or collection cannot be read, or a link leads off this disk.
    """
    start = path.resolve()
    seen, waiting = {start}, deque([(start, "child")])
    while waiting:
        file, kind = waiting.popleft()
        try:
            document = read_json(file, "repair it or remove its link")
        except UserError as error:
            # without a catalog's own document, nobody knows what is lacking
            if kind == "child":
                raise
            refused[file.name] = f"is a document that cannot be read: {str(error).removeprefix(f'{file}: ')}"
            continue
        if kind == "item":
            yield _absolute(document, file)
            continue
        for link in _links(document, file):
            if link[0] not in seen:
                seen.add(link[0])
                waiting.append(link)


def _links(document: Any, file: Path) -> Iterator[tuple[Path, str]]:
    links = document.get("links") if isinstance(document, dict) else None
    if not isinstance(links, list):
        raise UserError(f"{file}: is no STAC catalog (it has no list of links); repair it or name another")
    for link in links:
        if not isinstance(link, dict) or link.get("rel") not in _FOLLOWED:
            continue
        href = link.get("href")
        if not isinstance(href, str) or not href or "\0" in href:
            raise UserError(f"{file}: a link of kind {link['rel']} has no address; repair it")
        try:
            scheme = urlsplit(href).scheme
        except ValueError:
            scheme = "?"
        if scheme not in ("", "file"):
            raise UserError(
                f"{file}: links to {one_line(href, 120)}; a static catalog is read from this disk alone: download all of it, or "
                "name its STAC API (imagery.source.kind=stac_api)"
            )
        target = unquote(urlsplit(href).path) if scheme else href
        yield (file.parent / target).resolve(), link["rel"]


def _absolute(item: Any, file: Path) -> Any:
    """The item with the addresses of its files absolute; one of another shape is returned unchanged, to be refused."""
    from pystac.utils import make_absolute_href

    if not isinstance(item, dict) or not isinstance(item.get("assets"), dict):
        return item
    assets = {}
    for key, asset in item["assets"].items():
        # what is no address at all stays as it is: making it absolute would remove the very signs
        found = isinstance(asset, dict) and isinstance(asset.get("href"), str) and not CONTROL.search(asset["href"])
        try:
            assets[key] = {**asset, "href": make_absolute_href(asset["href"], str(file), start_is_dir=False)} if found else asset
        except ValueError:  # an address that is none
            assets[key] = asset
    return {**item, "assets": assets}
