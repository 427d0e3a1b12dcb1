"""Tracks the vintages of a workspace (due, retrained, missed) in one small file each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError, one_line
from caco_assets.core.foreign_files import read_object
from caco_assets.settings import Settings


@dataclass(frozen=True)
class Finished:
    """A vintage that has been retrained and decided on."""

    vintage: str
    run_id: str
    """Id of the orchestrator's run."""
    version: str
    """Version number in the registry."""
    promoted: bool
    """Whether it passed the policy."""
    at: str
    """When, UTC."""


def finished_month(moment: datetime) -> str:
    """The last month that has ended at `moment`: the newest vintage that can be made."""
    return f"{moment.replace(day=1) - timedelta(days=1):%Y-%m}"


def note_finished(settings: Settings, run_id: str, version: str, promoted: bool) -> Finished:
    """Record the settings' vintage as retrained."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Finished(settings.vintage, run_id, version, promoted, now)
    write_atomic(_folder(settings) / f"{settings.vintage}.json", json.dumps(asdict(entry), indent=1) + "\n")
    return entry


def finished(settings: Settings) -> dict[str, Finished]:
    """Vintage → its outcome, oldest first."""
    found, advice = {}, "delete it, its vintage is then due again"
    for file in sorted(_folder(settings).glob("*.json")):
        try:
            found[file.stem] = Finished(**read_object(file, advice))
        except TypeError as error:
            raise UserError(f"{file}: not readable ({one_line(error)}); {advice}") from error
    return found


def missed(settings: Settings, due: str) -> list[str]:
    """The vintages between the last one retrained and `due`, exclusive; empty if nothing has been retrained yet."""
    known = [vintage for vintage in finished(settings) if vintage < due]
    return months_between(known[-1], due)[1:] if known else []


def months_between(first: str, after: str) -> list[str]:
    """The months from `first` up to but excluding `after`, as `YYYY-MM`."""
    low, high = (int(text[:4]) * 12 + int(text[5:]) - 1 for text in (first, after))
    return [f"{month // 12:04d}-{month % 12 + 1:02d}" for month in range(low, high)]


def _folder(settings: Settings) -> Path:
    return settings.paths.root / "vintages"
