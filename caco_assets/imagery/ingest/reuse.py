"""Chip reuse: chips of an earlier vintage come from the shard that is about to be replaced instead of being fetched again.

Vintages a month apart share most of their scenes. A chip, or a refusal caused by the pixels (clouds, no data), remains valid while
its scene, its place and all other inputs of reading are the same; a reuse note beside the shard's record lists them.
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
from caco_assets.imagery.archive.refusals import LASTING
from caco_assets.imagery.archive.shard import INDEX, QUARANTINE, checked_members, read_index

if TYPE_CHECKING:
    from caco_assets.imagery.ingest.journal import Key
    from caco_assets.imagery.ingest.place import Place

_DIGITS = 16
"""Hexadecimal digits of a scene's digest: 64 bits."""


@dataclass(frozen=True)
class ReusedOutcome:
    """The outcome of an attempt of an earlier vintage."""

    key: Key
    """Place and item."""
    reason: str | None
    """None: there is a chip."""
    detail: str
    clear_fraction: float
    data: bytes
    """The chip's GeoTIFF; empty for a refusal."""


def write_reuse_note(
    file: Path, product: Product, reading: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], places: Sequence[Place]
) -> None:
    """Write the reuse note of a finished shard, what its chips depend on, for the next vintage.

    Args:
        file: to write.
        product: the shard.
        reading: everything that reading depends on besides scenes and places, JSON-able.
        rows: of `scenes.parquet`, of the shard.
        places: of the shard.
    """
    scenes = {row["item_id"]: scene_digest(row) for row in rows if row["item_id"] is not None}
    where = {place.location_id: [place.lon, place.lat] for place in places}
    note = {"fingerprint": product.fingerprint, "reading": reading, "scenes": scenes, "places": where}
    write_atomic(file, json.dumps(note, sort_keys=True) + "\n")


def has_note(file: Path, product: Product) -> bool:
    """Whether the file is the reuse note of this shard."""
    return file.exists() and json.loads(file.read_text())["fingerprint"] == product.fingerprint


def reusable_outcomes(
    file: Path, product: Product | None, reading: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], places: Sequence[Place]
) -> Iterator[ReusedOutcome]:
    """Outcomes of the shard on disk for the places and scenes that are wanted now, one chip at a time in memory.

    There are none when its note is missing or belongs to another shard, when reading has changed, or when its bytes are not those
    that were made (another version was checked out): then everything is read again.

    Args:
        file: written by `write_reuse_note` when the shard was made.
        product: the shard on record, if there is one.
        reading: as for `write_reuse_note`, now.
        rows: wanted candidates.
        places: of the shard.
    """
    if product is None or not has_note(file, product) or not (product.path / INDEX).exists():
        return
    note = json.loads(file.read_text())
    if note["reading"] != json.loads(json.dumps(reading)) or content_hash(product.path) != product.content_hash:
        return
    # a place of the same name elsewhere is another place
    there = {place.location_id for place in places if note["places"].get(place.location_id) == [place.lon, place.lat]}
    candidates = [row for row in rows if row["item_id"] is not None and row["location_id"] in there]
    today = {row["item_id"]: row for row in candidates}
    unchanged = {item_id for item_id, row in today.items() if note["scenes"].get(item_id) == scene_digest(row)}
    wanted = {(row["location_id"], row["item_id"]) for row in candidates if row["item_id"] in unchanged}
    yield from _chips(product.path, wanted)
    yield from _refusals(product.path, wanted)


def scene_digest(row: Mapping[str, Any]) -> str:
    """A digest of everything in a row of `scenes.parquet` that decides a scene's pixels: its files and what their numbers mean."""
    what = [row[name] for name in ("hrefs", "scale", "offset", "nodata", "radiometry", "processing_baseline")]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:_DIGITS]


def _chips(shard: Path, wanted: set[Key]) -> Iterator[ReusedOutcome]:
    table = read_index(shard, ["id", "location_id", "item_id", "clear_fraction", "offset", "length", "sha256"]).to_pylist()
    rows = [row for row in table if (row["location_id"], row["item_id"]) in wanted]
    # the hash of a shard whose tar lies in an object store does not cover the tar
    for row, data in zip(rows, checked_members(shard, rows), strict=True):
        yield ReusedOutcome((row["location_id"], row["item_id"]), None, "", row["clear_fraction"], data)


def _refusals(shard: Path, wanted: set[Key]) -> Iterator[ReusedOutcome]:
    import pyarrow.parquet as pq

    for row in pq.read_table(shard / QUARANTINE).to_pylist():
        key = row["location_id"], row["item_id"]
        if key in wanted and row["reason"] in LASTING:
            yield ReusedOutcome(key, row["reason"], row["detail"], row["clear_fraction"], b"")
