"""The months of a workspace: which is due, which have been retrained, which were missed; one small file for each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.settings import Settings


@dataclass(frozen=True)
class Finished:
    """A vintage that has been retrained and decided on."""

    vintage: str
    run_id: str
    """Of the orchestrator."""
    version: str
    """In the registry."""
    promoted: bool
    """It passed the policy."""
    at: str
    """When, UTC."""


def finished_month(moment: datetime) -> str:
    """The last month that is over at `moment`: the vintage that can be made now."""
    return f"{moment.replace(day=1) - timedelta(days=1):%Y-%m}"


def note_finished(settings: Settings, run_id: str, version: str, promoted: bool) -> Finished:
    """Write that the vintage of the settings has been retrained."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Finished(settings.vintage, run_id, version, promoted, now)
    write_atomic(_folder(settings) / f"{settings.vintage}.json", json.dumps(asdict(entry), indent=1) + "\n")
    return entry


def finished(settings: Settings) -> dict[str, Finished]:
    """Vintage → what became of it, oldest first."""
    found = {}
    for file in sorted(_folder(settings).glob("*.json")):
        try:
            found[file.stem] = Finished(**json.loads(file.read_text()))
        except (json.JSONDecodeError, TypeError) as error:
            raise UserError(
                f"{file}: not readable ({' '.join(str(error).split())}); delete it, its vintage is then due again"
            ) from error
    return found


def missed(settings: Settings, due: str) -> list[str]:
    """The vintages between the last one retrained and `due`, without these two; none where nothing has been retrained yet."""
    known = [vintage for vintage in finished(settings) if vintage < due]
    return months_between(known[-1], due)[1:] if known else []


def months_between(first: str, after: str) -> list[str]:
    """The months from `first` to before `after`, as `YYYY-MM`."""
    low, high = (int(text[:4]) * 12 + int(text[5:]) - 1 for text in (first, after))
    return [f"{month // 12:04d}-{month % 12 + 1:02d}" for month in range(low, high)]


def _folder(settings: Settings) -> Path:
    return settings.paths.root / "vintages"
