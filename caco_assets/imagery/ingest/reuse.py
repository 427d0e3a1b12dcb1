"""Chips that an earlier vintage has read: taken over from the shard that is about to be replaced, instead of fetched again.

Vintages a month apart share most of their scenes. A chip, or a refusal that lies in the pixels (clouds, no data), is valid again
when its scene, its place and everything that reading depends on are the same; what that was is noted beside the shard's record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caco_assets.core.atomic import write_atomic
from caco_assets.core.products import Product, content_hash
from caco_assets.imagery.archive.shard import INDEX, QUARANTINE
from caco_assets.imagery.archive.tar_store import read_members

if TYPE_CHECKING:
    from caco_assets.imagery.ingest.fill_shard import Place
    from caco_assets.imagery.ingest.journal import Key

LASTING = ("cloudy", "nodata")
"""Refusals that lie in the pixels; a file that could not be read may be whole tomorrow."""
_MARK = 16
"""Hexadecimal digits of a scene's mark: 64 bits."""


@dataclass(frozen=True)
class Known:
    """The outcome of a try of an earlier vintage."""

    key: Key
    """Place and item."""
    reason: str | None
    """None: there is a chip."""
    detail: str
    clear_fraction: float
    data: bytes
    """The chip's GeoTIFF; empty for a refusal."""


def note(
    file: Path, product: Product, reading: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], places: Sequence[Place]
) -> None:
    """Write what the chips of a finished shard depend on: for the vintage after it.

    Args:
        file: to write.
        product: the shard.
        reading: all that reading depends on beside scenes and places, JSON-able.
        rows: of `scenes.parquet`, of the shard.
        places: of the shard.
    """
    scenes = {row["item_id"]: scene_mark(row) for row in rows if row["item_id"] is not None}
    where = {place.location_id: [place.lon, place.lat] for place in places}
    noted = {"fingerprint": product.fingerprint, "reading": reading, "scenes": scenes, "places": where}
    write_atomic(file, json.dumps(noted, sort_keys=True) + "\n")


def is_noted(file: Path, product: Product) -> bool:
    """Whether the file is the note of this shard."""
    return file.exists() and json.loads(file.read_text())["fingerprint"] == product.fingerprint


def known(
    file: Path, product: Product | None, reading: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], places: Sequence[Place]
) -> Iterator[Known]:
    """What the shard on disk knows about the places and scenes that are wanted now, one chip at a time in memory.

    Nothing, where its note is absent or belongs to another shard, where reading has changed, or where its bytes are not those
    that were made (another version was checked out): then all is read as if for the first time.

    Args:
        file: written by `note` when the shard was made.
        product: the shard on record; none: there is none.
        reading: as for `note`, today.
        rows: wanted candidates.
        places: of the shard.
    """
    if product is None or not is_noted(file, product) or not (product.path / INDEX).exists():
        return
    noted = json.loads(file.read_text())
    if noted["reading"] != json.loads(json.dumps(reading)) or content_hash(product.path) != product.content_hash:
        return
    # a place of the same name elsewhere is another place
    there = {place.location_id for place in places if noted["places"].get(place.location_id) == [place.lon, place.lat]}
    candidates = [row for row in rows if row["item_id"] is not None and row["location_id"] in there]
    today = {row["item_id"]: row for row in candidates}
    unchanged = {item_id for item_id, row in today.items() if noted["scenes"].get(item_id) == scene_mark(row)}
    wanted = {(row["location_id"], row["item_id"]) for row in candidates if row["item_id"] in unchanged}
    yield from _chips(product.path, wanted)
    yield from _refusals(product.path, wanted)


def scene_mark(row: Mapping[str, Any]) -> str:
    """A mark of everything in a row of `scenes.parquet` that decides a scene's pixels: its files and what their numbers mean."""
    what = [row[name] for name in ("hrefs", "scale", "offset", "nodata", "radiometry", "processing_baseline")]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:_MARK]


def _chips(shard: Path, wanted: set[Key]) -> Iterator[Known]:
    import pyarrow.parquet as pq

    columns = ["location_id", "item_id", "clear_fraction", "offset", "length"]
    table = pq.read_table(shard / INDEX, columns=columns).to_pylist()
    rows = [row for row in table if (row["location_id"], row["item_id"]) in wanted]
    for row, data in zip(rows, read_members(shard, rows), strict=True):
        yield Known((row["location_id"], row["item_id"]), None, "", row["clear_fraction"], data)


def _refusals(shard: Path, wanted: set[Key]) -> Iterator[Known]:
    import pyarrow.parquet as pq

    for row in pq.read_table(shard / QUARANTINE).to_pylist():
        key = row["location_id"], row["item_id"]
        if key in wanted and row["reason"] in LASTING:
            yield Known(key, row["reason"], row["detail"], row["clear_fraction"], b"")
