"""The documents around the scenes: `catalog.json`, `collection.json`, `items.parquet`, and the truth about change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import stac_geoparquet.arrow

from caco_assets.core.atomic import write_atomic
from caco_assets.synthetic.catalog.scene_plan import Spot
from caco_assets.synthetic.catalog.scene_writer import COLLECTION
from caco_assets.synthetic.earth.earth import View

CHANGED_FROM = 0.01
"""A place counts as changed when at least this share of its chip has another class in the late period."""
_SCHEMA = pa.schema(
    [
        ("location_id", pa.string()),
        ("changed", pa.bool_()),
        ("kind", pa.string()),
        ("fraction", pa.float64()),
        ("mask", pa.string()),
    ]
)


def write_documents(folder: Path, items: list[Path], title: str) -> None:
    """Write the catalog, its one collection and the parquet index of the items.

    Args:
        folder: of the catalog.
        items: paths of all item files, in `folder/<collection>/<item>/<item>.json`.
        title: of the catalog.
    """
    records = [json.loads(path.read_text()) for path in items]
    boxes = np.array([record["bbox"] for record in records])
    times = sorted(record["properties"]["datetime"] for record in records)
    up = {"type": "application/json"}
    collection = {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": COLLECTION,
        "title": title,
        "description": "Drawn, not sensed: twelve Sentinel-2 bands and a scene classification of the embedded Earth.",
        "license": "Apache-2.0",
        "extent": {
            "spatial": {"bbox": [[*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]]},
            "temporal": {"interval": [[times[0], times[-1]]]},
        },
        "links": [
            {"rel": "root", "href": "../catalog.json", **up},
            {"rel": "parent", "href": "../catalog.json", **up},
            *({"rel": "item", "href": f"./{path.parent.name}/{path.name}", "type": "application/geo+json"} for path in items),
        ],
    }
    catalog = {
        "type": "Catalog",
        "stac_version": "1.1.0",
        "id": "embedded-earth",
        "title": title,
        "description": "The embedded Earth of caco_assets.",
        "links": [
            {"rel": "root", "href": "./catalog.json", **up},
            {"rel": "child", "href": f"./{COLLECTION}/collection.json", **up},
        ],
    }
    write_atomic(folder / COLLECTION / "collection.json", json.dumps(collection, indent=1) + "\n")
    write_atomic(folder / "catalog.json", json.dumps(catalog, indent=1) + "\n")
    _write_index(folder / "items.parquet", records)


def _write_index(path: Path, records: list[dict[str, Any]]) -> None:
    """The items as stac-geoparquet; asset hrefs are relative to the index, as in any document they are relative to it."""
    for record in records:
        for asset in record["assets"].values():
            asset["href"] = f"./{COLLECTION}/{record['id']}/{asset['href'].removeprefix('./')}"
        record["links"] = [
            {"rel": "self", "href": f"./{COLLECTION}/{record['id']}/{record['id']}.json", "type": "application/geo+json"}
        ]
    stac_geoparquet.arrow.to_parquet(stac_geoparquet.arrow.parse_stac_items_to_arrow(records), path)


def truth_of(folder: Path, view: View, spots: tuple[Spot, ...]) -> list[dict[str, Any]]:
    """Write each place's mask of true change and its cover in both periods; return the rows of `change.parquet`.

    `<location_id>.npz` holds `change` (bool), `early` and `late` (uint8 codes of the ten classes), all (side, side) at 10 m on the
    chip's own grid. Crop rotation is no change.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pad = (view.frame.shape[0] - view.window.height) // 2
    early, owner = view.land.cover[pad:-pad, pad:-pad], view.event()
    late = view.cover_at_last()
    rows = []
    for spot in spots:
        row, col = int((view.window.north - spot.top) // 10), int((spot.left - view.window.west) // 10)
        side = int(spot.side // 10)
        at = slice(row, row + side), slice(col, col + side)
        mask = early[at] != late[at]
        name = f"{spot.location_id}.npz"
        np.savez_compressed(folder / name, change=mask, early=early[at], late=late[at])
        fraction = float(np.count_nonzero(mask)) / mask.size
        numbers, counts = np.unique(owner[at][mask], return_counts=True)
        kind = view.events[int(numbers[np.argmax(counts)]) - 1].kind if fraction >= CHANGED_FROM else ""
        rows.append(
            {
                "location_id": spot.location_id,
                "changed": fraction >= CHANGED_FROM,
                "kind": kind,
                "fraction": round(fraction, 6),
                "mask": name,
            }
        )
    return rows


def write_truth(path: Path, rows: list[dict[str, Any]]) -> None:
    """`change.parquet`: one row per place, sorted; `mask` is a file beside it."""
    ordered = sorted(rows, key=lambda row: row["location_id"])
    pq.write_table(pa.Table.from_pylist(ordered, _SCHEMA), path)
