"""Lists the contents of an archive: shards, and the chips of one shard, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from caco_assets.core.errors import UserError
from caco_assets.imagery.archive.refusals import by_reason, in_words, read_refusals
from caco_assets.imagery.archive.shard import INDEX, read_index, shard_folders, shard_name
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
    reasons: dict[str, int] = field(default_factory=dict)
    """Reason → number of refusals."""

    def __str__(self) -> str:
        """One line."""
        dates = f", {self.first} to {self.last}" if self.first else ""
        size = tqdm.format_sizeof(self.bytes, "B")
        why = f" ({in_words(self.reasons)})" if self.reasons else ""
        return f"{self.shard}: {self.chips} chips of {self.places} places, {size}, {self.refused} refused{why}{dates}"


def list_shards(archive: Path) -> list[ShardFacts]:
    """The shards of an archive, by number."""
    found = []
    for folder in shard_folders(archive):
        table = read_index(folder, ["location_id", "datetime"])
        dates = sorted(moment.date().isoformat() for moment in table["datetime"].to_pylist())
        first, last = (dates[0], dates[-1]) if dates else (None, None)
        reasons = by_reason(read_refusals(folder))
        places, refused = len(table["location_id"].unique()), sum(reasons.values())
        found.append(ShardFacts(folder.name, table.num_rows, places, tar_size(folder), refused, first, last, reasons))
    return found


def list_chips(archive: Path, shard: int) -> list[dict[str, Any]]:
    """The chips of a shard in the order of its tar: their metadata and byte ranges.

    Raises:
        UserError: there is no such shard.
    """
    return read_index(_shard(archive, shard), [*_CHIP, "offset", "length", "sha256"]).to_pylist()


def list_refusals(archive: Path, shard: int | None = None) -> list[dict[str, Any]]:
    """The refusals of a shard, or of all shards, in the order in which they were tried.

    Raises:
        UserError: there is no such shard.
    """
    folders = shard_folders(archive) if shard is None else [_shard(archive, shard)]
    return [row for folder in folders for row in read_refusals(folder)]


def refusal_line(row: dict[str, Any]) -> str:
    """One refusal in one line: place, date, scene, reason."""
    slot = "" if row["period"] is None else f" p{row['period']}s{row['season']}"
    return f"{row['location_id']}{slot}  {row['item_id'] or '-'}  {row['reason']}: {row['detail']}"


def _shard(archive: Path, shard: int) -> Path:
    folder = archive / shard_name(shard)
    if not (folder / INDEX).exists():
        known = [path.name for path in shard_folders(archive)]
        there = f"{known[0]} to {known[-1]}" if known else "none"
        raise UserError(f"shard={shard}: not in {archive} (there: {there})")
    return folder


def total(shards: list[ShardFacts]) -> str:
    """The last line of a listing."""
    chips, places, size, refused = (sum(getattr(one, name) for one in shards) for name in ("chips", "places", "bytes", "refused"))
    reasons: Counter[str] = sum((Counter(one.reasons) for one in shards), Counter())
    why = f" ({in_words(dict(reasons.most_common()))})" if reasons else ""
    return f"{len(shards)} shards: {chips} chips of {places} places, {tqdm.format_sizeof(size, 'B')}, {refused} refused{why}"
