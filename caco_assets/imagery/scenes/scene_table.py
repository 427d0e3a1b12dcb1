"""Many scenes as one Arrow table, a few hundred bytes a scene: the input of planning."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions when it is imported)
from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from caco_assets.imagery.scenes.clear_sky import TEST_BANDS
from caco_assets.imagery.scenes.hrefs import pack, unpack
from caco_assets.imagery.scenes.item_shape import item_name, used_parts
from caco_assets.imagery.scenes.periods import Interval
from caco_assets.imagery.scenes.radiometry import Radiometry
from caco_assets.imagery.scenes.stac_item import ItemRefusedError, Scene, scene_from_item

SCENES = pa.schema(
    [
        ("item_id", pa.string()),
        ("datetime", pa.timestamp("us", tz="UTC")),
        ("cloud_cover", pa.float64()),
        ("epsg", pa.int32()),
        ("processing_baseline", pa.string()),
        ("scale", pa.float64()),
        ("offset", pa.float64()),
        ("nodata", pa.float64()),
        ("radiometry", pa.string()),
        ("hrefs", pa.string()),
        ("geometry", pa.binary()),
    ]
)
"""Columns of a table of scenes: those of `scenes.parquet` that belong to the scene, and the footprint (WKB, EPSG:4326)."""


def scenes_of(items: Iterable[Any], bands: tuple[str, ...], refused: dict[str, str], *, local: bool = True) -> pa.Table:
    """The scenes of STAC items (as JSON), in order; items that cannot be used go to `refused` with the reason.

    `local`: the catalog lies on this machine and may name files of it.
    """
    return in_order(scene_table(usable_scenes(items, bands, refused, local=local)))


def usable_scenes(items: Iterable[Any], bands: tuple[str, ...], refused: dict[str, str], *, local: bool = True) -> Iterator[Scene]:
    """The scenes of STAC items (as JSON) of any origin, in the order given; the only place where an item is accepted or refused.

    Args:
        items: whatever the catalog holds where an item should be.
        bands: required of each.
        refused: receives the items that cannot be used, with the reason.
        local: the catalog lies on this machine and may name files of it.
    """
    for item in items:
        try:
            yield scene_from_item(used_parts(item), bands, TEST_BANDS, local=local)
        except ItemRefusedError as error:
            refused[item_name(item)] = str(error)


def scene_table(scenes: Iterable[Scene]) -> pa.Table:
    """Scenes as a table, in the order given."""
    return pa.Table.from_pylist([_row(scene) for scene in scenes], SCENES)


def scenes_in(table: pa.Table) -> list[Scene]:
    """The rows as objects, for inspection and tests."""
    return [_scene(row) for row in table.to_pylist()]


def in_order(table: pa.Table) -> pa.Table:
    """Sorted by time and id, each item once."""
    order = pc.sort_indices(table, [("datetime", "ascending"), ("item_id", "ascending")])
    ids = table["item_id"].take(order).combine_chunks().dictionary_encode().indices.to_numpy()
    first = np.sort(np.unique(ids, return_index=True)[1])
    # move the long texts once
    return table.take(order.take(pa.array(first)))


def within(table: pa.Table, spans: Iterable[Interval]) -> pa.Table:
    """The scenes whose time is in one of the half-open intervals."""
    return table.filter(pa.array(inside(table["datetime"], spans)))


def inside(moments: pa.ChunkedArray | pa.Array, spans: Iterable[Interval]) -> np.ndarray:
    """Which of the times are in one of the half-open intervals; False for unknown ones."""
    kind = pa.timestamp("us", tz="UTC")
    kept = pa.array(np.zeros(len(moments), bool))
    for start, end in spans:
        later = pc.greater_equal(moments, pa.scalar(start, kind))
        kept = pc.or_(kept, pc.and_(later, pc.less(moments, pa.scalar(end, kind))))
    return np.asarray(pc.fill_null(kept, False))


def exceptions_json(exceptions: Mapping[str, Radiometry]) -> str | None:
    """Band → [scale, offset] of bands that differ from the others; null when none does."""
    table = {band: [one.scale, one.offset] for band, one in exceptions.items()}
    return json.dumps(table, separators=(",", ":")) if table else None


def _row(scene: Scene) -> dict[str, Any]:
    usual = scene.radiometry
    return {
        **{name: getattr(scene, name) for name in ("item_id", "datetime", "cloud_cover", "epsg", "processing_baseline")},
        **{"scale": usual.scale, "offset": usual.offset, "nodata": usual.nodata, "radiometry": exceptions_json(scene.exceptions)},
        **{"hrefs": pack(scene.hrefs), "geometry": scene.geometry.wkb},
    }


def _scene(row: Mapping[str, Any]) -> Scene:
    other = json.loads(row["radiometry"] or "{}")
    return Scene(
        **{name: row[name] for name in ("item_id", "datetime", "cloud_cover", "epsg", "processing_baseline")},
        radiometry=Radiometry(row["scale"], row["offset"], row["nodata"]),
        exceptions={band: Radiometry(scale, offset, row["nodata"]) for band, (scale, offset) in other.items()},
        hrefs=unpack(row["hrefs"]),
        geometry=shapely.from_wkb(row["geometry"]),
    )
