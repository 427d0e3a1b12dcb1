"""Lists the contents of an archive: shards, and the chips of one shard, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from caco_assets.core.errors import UserError
from caco_assets.imagery.archive.shard import INDEX, QUARANTINE, read_columns, shard_folders, shard_name
from caco_assets.imagery.archive.tar_store import tar_size

_CHIP = ("id", "location_id", "period", "season", "datetime", "item_id", "epsg", "clear_fraction", "cloud_cover", "status")


@dataclass(frozen=True)
class ShardFacts:
    """One shard in figures."""

    shard: str
    chips: int
    places: int
    bytes: int
    refused: int
    """Rows of its quarantine."""
    first: str | None
    """Date of its oldest chip; None if it has no chip."""
    last: str | None

    def __str__(self) -> str:
        """One line."""
        dates = f", {self.first} to {self.last}" if self.first else ""
        size = tqdm.format_sizeof(self.bytes, "B")
        return f"{self.shard}: {self.chips} chips of {self.places} places, {size}, {self.refused} refused{dates}"


def list_shards(archive: Path) -> list[ShardFacts]:
    """The shards of an archive, by number."""
    found = []
    for folder in shard_folders(archive):
        table = read_columns(folder / INDEX, ["location_id", "datetime"])
        dates = sorted(moment.date().isoformat() for moment in table["datetime"].to_pylist())
        first, last = (dates[0], dates[-1]) if dates else (None, None)
        refused = read_columns(folder / QUARANTINE, ["reason"]).num_rows
        places = len(table["location_id"].unique())
        found.append(ShardFacts(folder.name, table.num_rows, places, tar_size(folder), refused, first, last))
    return found


def list_chips(archive: Path, shard: int) -> list[dict[str, Any]]:
    """The chips of a shard in the order of its tar: their metadata and byte ranges.

    Raises:
        UserError: there is no such shard.
    """
    folder = archive / shard_name(shard)
    if not (folder / INDEX).exists():
        known = [path.name for path in shard_folders(archive)]
        there = f"{known[0]} to {known[-1]}" if known else "none"
        raise UserError(f"shard={shard}: not in {archive} (there: {there})")
    return read_columns(folder / INDEX, [*_CHIP, "offset", "length", "sha256"]).to_pylist()


def total(shards: list[ShardFacts]) -> str:
    """The last line of a listing."""
    chips, places, size, refused = (sum(getattr(one, name) for one in shards) for name in ("chips", "places", "bytes", "refused"))
    return f"{len(shards)} shards: {chips} chips of {places} places, {tqdm.format_sizeof(size, 'B')}, {refused} refused"
