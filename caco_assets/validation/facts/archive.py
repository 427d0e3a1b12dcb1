"""Facts of the archive: every chip's record, every place's dates, every shard's files, and the pixels of a sample of places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from caco_assets.imagery.archive.tar_store import has_tar, tar_size
from caco_assets.settings import Settings
from caco_assets.validation.facts.pixels import PIXEL_COLUMNS, pixel_facts, shift_of_dark_targets
from caco_assets.validation.facts.quarantine import quarantine_summary, read_quarantine
from caco_assets.validation.facts.table import Frame, Table, missing_fields, numbers, read_parquet, slot_id

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = (
    "id", "location_id", "period", "season", "datetime", "item_id", "epsg", "clear_fraction", "status", "offset", "length",
    "sha256", "geometry",
)  # fmt: skip
SAMPLED_PLACES = 12
"""Places whose chips are opened: 120 chips of the embedded profile take about a second."""


def archive(settings: Settings) -> list[Table]:
    """`archive.shards`, `.chips`, `.places`, `.pixels` (a seeded sample), `.dark_shift` and `.quarantine`.

    Raises:
        UserError: a product is absent or unreadable.
    """
    import pandas as pd

    places = read_parquet(settings.paths.locations, ("location_id", "lon", "lat", "shard"))
    numbers(places, ("lon", "lat", "shard"))
    folders = {int(number): settings.paths.archive / f"shard={int(number):04d}" for number in sorted(places["shard"].unique())}
    shards = pd.DataFrame([_shard(*item) for item in folders.items()], columns=["id", "shard", "files_missing"])
    whole = [number for number, absent in zip(folders, shards["files_missing"], strict=True) if "chips" not in absent]
    parts = [_read_chips(folders[number], number) for number in whole]
    chips = pd.concat(parts, ignore_index=True) if parts else _read_nothing()
    refused = read_quarantine(settings)
    pixels = _sample(chips, folders, settings)
    return [
        Table("archive.shards", shards),
        Table("archive.chips", _chips(chips, places)),
        Table("archive.places", _places(chips, places, set(refused["location_id"]))),
        Table("archive.pixels", pixels),
        Table("archive.dark_shift", shift_of_dark_targets(pixels, settings.imagery.bands)),
        Table("archive.quarantine", quarantine_summary(chips, places, refused, settings)),
    ]


def _shard(number: int, folder: Path) -> dict[str, object]:
    absent = [name for name in ("chips.parquet", "quarantine.parquet") if not (folder / name).exists()]
    absent += [] if has_tar(folder) else ["chips.tar"]
    return {"id": folder.name, "shard": number, "files_missing": ",".join(absent)}


def _read_chips(folder: Path, number: int) -> Frame:
    frame = read_parquet(folder / "chips.parquet", (*FIELDS, "cloud_cover"))
    numbers(frame, ("period", "season", "epsg", "clear_fraction", "cloud_cover", "offset", "length"))
    frame["missing_fields"] = missing_fields(frame, FIELDS)
    frame["shard"] = number
    frame["bytes_past_end"] = (frame["offset"] + frame["length"] - tar_size(folder)).clip(lower=0)
    frame["bytes_shared"] = _bytes_shared(frame["offset"].to_numpy(), frame["length"].to_numpy())
    return frame


def _read_nothing() -> Frame:
    import pandas as pd

    return pd.DataFrame(columns=[*FIELDS, "cloud_cover", "missing_fields", "shard", "bytes_past_end", "bytes_shared"])


def _bytes_shared(offset: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Bytes of each chip that overlap the next one in the tar."""
    shared = np.zeros(len(offset))
    order = np.argsort(offset, kind="stable")
    shared[order[:-1]] = np.clip((offset + length)[order[:-1]] - offset[order[1:]], 0, None)
    return np.nan_to_num(shared)


def _chips(chips: Frame, places: Frame) -> Frame:
    table = chips.drop(columns=["geometry", "datetime"])
    shard_of = dict(zip(places["location_id"], places["shard"], strict=True))
    table["location_id"] = table["location_id"].fillna("").astype(str)
    table["id"] = [
        slot_id(place, period, season)
        for place, period, season in zip(table["location_id"], table["period"], table["season"], strict=True)
    ]
    table["location_known"] = table["location_id"].isin(set(places["location_id"]))
    table["shard_gap"] = [
        float(number - shard_of.get(place, number)) for place, number in zip(table["location_id"], table["shard"], strict=True)
    ]
    table["sha256"] = table["sha256"].fillna("").astype(str)
    table["epsg"] = table["epsg"].fillna(0).astype("int64").astype(str)
    return table


def _places(chips: Frame, places: Frame, refused: set[str]) -> Frame:
    import pandas as pd

    early, late = (chips[chips["period"] == period].groupby("location_id")["season"].nunique() for period in (0, 1))
    grids = chips.assign(grid=chips["epsg"].astype(str) + chips["geometry"].map(repr)).groupby("location_id")["grid"].nunique()
    epsg = chips.groupby("location_id")["epsg"].first()
    rows = []
    for place, lon, lat in zip(places["location_id"], places["lon"], places["lat"], strict=True):
        dates = int(early.get(place, 0)), int(late.get(place, 0))
        zone = 0 if place not in epsg.index else _zone_gap(epsg[place], lon, lat)
        rows.append(
            {
                "id": place,
                "dates_early": dates[0],
                "dates_late": dates[1],
                "dates_fewest": min(dates) if any(dates) else np.nan,  # a place without chips is covered by `explained`
                "grids": int(grids.get(place, 1)),
                "zone_gap": zone,
                "explained": sum(dates) > 0 or place in refused,
            }
        )
    columns = ["id", "dates_early", "dates_late", "dates_fewest", "grids", "zone_gap", "explained"]
    return pd.DataFrame(rows, columns=columns)


def _zone_gap(epsg: float, lon: float, lat: float) -> int:
    """UTM zones between the chip's and the place's own; 60 where the chip lies in the other hemisphere or in no UTM zone."""
    own = int((lon + 180) // 6) % 60 + 1
    code = int(epsg) if epsg == epsg else 0  # noqa: PLR0124 - NaN is the only value unlike itself
    if code // 100 != (326 if lat >= 0 else 327):
        return 60
    gap = abs(code % 100 - own)
    return min(gap, 60 - gap)


def _sample(chips: Frame, folders: dict[int, Path], settings: Settings) -> Frame:
    """Pixel facts of all chips of a few places, chosen by the run's seed: both periods of a place are needed for the shift."""
    import pandas as pd

    names = sorted(chips["location_id"].dropna().unique())
    chosen = np.random.default_rng(settings.seed).permutation(len(names))[:SAMPLED_PLACES]
    sampled = chips[chips["location_id"].isin({names[index] for index in chosen})]
    rows = [
        pixel_facts(folders[int(row["shard"])], row, settings)
        for row in sampled.to_dict("records")
        if row["offset"] >= 0 and row["length"] > 0
    ]
    return pd.DataFrame(rows, columns=list(PIXEL_COLUMNS))
