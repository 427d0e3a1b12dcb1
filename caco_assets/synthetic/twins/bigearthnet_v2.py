"""A twin of BigEarthNet-S2, second version: tiles of patches, reference maps, and `metadata.parquet` with 19 labels."""

from __future__ import annotations

from pathlib import Path

from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.synthetic.twins.bigearthnet import write_bands, write_tif
from caco_assets.synthetic.twins.bigearthnet_scenes import GROUPS, draw, places, present, split_of

KIND = "bigearthnet_v2"
_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def write_twin(folder: Path, seed: int, count: int) -> Facts:
    """Write `BigEarthNet-S2/<tile>/<patch>/`, `Reference_Maps/<tile>/<patch>/` and `metadata.parquet`.

    Args:
        folder: of the twin.
        seed: of the Earth.
        count: images that EuroSAT's twin has in each class; this one has as many patches in all, at least 48.
    """
    import pyarrow as pa
    from pyarrow import parquet

    wanted = places(seed, KIND, max(48, count))
    rows = []
    progress = Progress("twin of BigEarthNet, second version", len(wanted), "patches")
    for place in wanted:
        patch = draw(seed, KIND, place)
        tile = f"S2A_MSIL2A_{patch.when:%Y%m%dT%H%M%S}_N9999_R{place.town % 143:03d}_T{patch.epsg % 100:02d}XXX"
        name = f"{tile}_{place.col:02d}_{place.row:02d}"
        write_bands(folder / "BigEarthNet-S2" / tile / name, name, patch)
        maps = folder / "Reference_Maps" / tile / name
        maps.mkdir(parents=True, exist_ok=True)
        write_tif(maps / f"{name}_reference_map.tif", patch.corine, patch)
        labels = sorted({GROUPS[code] for code in present(patch.corine) if code in GROUPS})
        rows.append({"patch_id": name, "labels": labels, "split": _SPLITS[split_of(place.town)], "country": "Embedded Earth"})
        progress.advance()
    progress.close()
    for row in rows:
        row |= {"s1_name": "", "s2v1_name": "", "contains_seasonal_snow": False, "contains_cloud_or_shadow": False}
    parquet.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")
    counts = {f"{split}_patches": sum(row["split"] == split for row in rows) for split in _SPLITS.values()}
    return {"patches": len(rows), **counts}
