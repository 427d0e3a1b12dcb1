"""A home's DVC repository: its lock, the entries of `dvc.lock` and the history of commits."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import parse_json, read_text, read_yaml
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from dvc.repo import Repo

# Another process may hold DVC's lock for one commit; a longer wait means that something hangs.
LOCK_WAIT_S = 60.0
_TRY_AGAIN_S = 0.5
# files that every run writes and that are part of no version
_NO_DATA = "settings"


class UnavailableError(UserError):
    """The remote cannot be reached or DVC's lock is held: the same call may succeed later."""


@contextmanager
def repository(home: Path, what: str) -> Iterator[Repo]:
    """The repository, locked while the block runs.

    Args:
        home: the home folder.
        what: the operation, for the error message.

    Raises:
        UnavailableError: another process holds the lock for longer than `LOCK_WAIT_S`.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    # suppress "Updating lock file" for every stage of every run
    logging.getLogger("dvc").setLevel(logging.WARNING)
    deadline = time.monotonic() + LOCK_WAIT_S
    with Repo(str(home)) as repo:
        while True:
            held = lock_repo(repo)
            try:
                held.__enter__()
                break
            except LockError as error:
                if time.monotonic() > deadline:
                    raise UnavailableError(f"{what}: the repository is locked by another process ({error})") from error
                time.sleep(_TRY_AGAIN_S)
        try:
            yield repo
        finally:
            held.__exit__(None, None, None)


def stages_of(settings: Settings) -> dict[str, dict[str, Any]]:
    """The entries of `dvc.lock` for this profile's data: stage (`archive`) → `cmd`, `deps`, `outs`."""
    path = settings.home / "dvc.lock"
    known = _lock(path) if path.exists() else {}
    parted = {tuple(name.split("@", 1)): entry for name, entry in known.items() if "@" in name}
    return {stage: entry for (stage, profile), entry in parted.items() if profile == settings.profile and stage != _NO_DATA}


def _lock(path: Path) -> dict[str, dict[str, Any]]:
    """Stage → its entry.

    Raises:
        UserError: the file is damaged, or not written by DVC.
    """
    advice = "restore it from git, or delete it and run the chain again"
    stages = (content.get("stages") or {}) if isinstance(content := read_yaml(path, advice) or {}, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(name, str) and _is_entry(entry) for name, entry in stages.items()):
        raise UserError(f"{path}: not a lock file of DVC; {advice}")
    return stages


def _is_entry(entry: Any) -> bool:
    """Whether this is a stage with lists of files, each with a path."""
    lists = [entry.get(key) or [] for key in ("deps", "outs")] if isinstance(entry, dict) else [None]
    return all(isinstance(each, list) and all(isinstance(file, dict) and "path" in file for file in each) for each in lists)


def locked(settings: Settings, stage: str) -> dict[str, str]:
    """Outputs of a stage as `dvc.lock` names them: path relative to the home → md5."""
    return {out["path"]: out["md5"] for out in stages_of(settings).get(stage, {}).get("outs", [])}


def data_versions(settings: Settings) -> dict[str, str]:
    """md5 of every committed data product of the profile, by product name (`locations`, `scenes`, `archive`, `pack`, …)."""
    stages = ("locations", "scenes", "archive", "pack")
    return {Path(path).stem: md5 for stage in stages for path, md5 in locked(settings, stage).items()}


def remember(settings: Settings, stage: str) -> None:
    """Add a stage's outputs to the commit history, which names objects that `dvc.lock` no longer lists."""
    path = _history_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {(entry["path"], entry["md5"]) for entry in history(settings)}
    outs = [out for out in stages_of(settings).get(stage, {}).get("outs", []) if (out["path"], out["md5"]) not in known]
    when = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [json.dumps({"when": when, "profile": settings.profile, "stage": stage, **out}) + "\n" for out in outs]
    with path.open("a") as file:
        file.write("".join(lines))


def history(settings: Settings) -> list[dict[str, Any]]:
    """Everything committed in this home, for any profile, oldest first: `when`, `profile`, `stage`, `path`, `md5`, `size`."""
    path = _history_file(settings)
    if not path.exists():
        return []
    advice = "restore it from a backup, or remove the damaged line: `caco gc` then no longer names what it listed"
    lines = [line for line in read_text(path, advice).splitlines() if line.strip()]
    entries = [parse_json(line.encode(), f"{path}, line {number}", advice) for number, line in enumerate(lines, 1)]
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or not {"when", "profile", "path", "md5"} <= entry.keys():
            raise UserError(f"{path}, line {number}: no entry of the history; {advice}")
    return entries


def _history_file(settings: Settings) -> Path:
    return settings.paths.workspace / "dvc" / "history.jsonl"
