"""State of a run in files beside its folder: a lock that excludes concurrent runs, and the outcome."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from caco_assets.core.atomic import write_atomic
from caco_assets.core.file_lock import file_lock
from caco_assets.core.products import Facts

DONE, ERROR, STOPPED = "done", "error", "stopped"
# A training whose parent was killed stops at its next step; one that does not belongs to another process.
_WAIT_S = 60.0


def sidecar_file(folder: Path, what: str) -> Path:
    """A file of the run in `folder` that is not part of its product; removed with the product's temporary files."""
    return folder.with_name(f"{folder.name}.{what}")


def training_lock(folder: Path, wait_s: float = _WAIT_S) -> AbstractContextManager[None]:
    """The lock of a training folder.

    Raises:
        UserError: on entry; another training holds it and does not stop within `wait_s` seconds.
    """
    return file_lock(sidecar_file(folder, "lock"), f"training in {folder}", wait_s=wait_s)


def write_outcome(folder: Path, status: str, **fields: Any) -> None:
    """Write how the training in `folder` ended: `done` (facts), `error` (message) or `stopped` (signum)."""
    text = json.dumps({"status": status, **fields}, indent=1, default=lambda value: value.tolist())
    write_atomic(sidecar_file(folder, "outcome.json"), text + "\n")


def read_outcome(folder: Path) -> dict[str, Any]:
    """The contents written by `write_outcome`; without a file there is no status."""
    file = sidecar_file(folder, "outcome.json")
    return json.loads(file.read_text()) if file.exists() else {"status": None}


def forget_outcome(folder: Path) -> None:
    """Remove the outcome of an earlier training before another starts."""
    sidecar_file(folder, "outcome.json").unlink(missing_ok=True)


def finished(folder: Path, recipe: dict[str, Any], data: dict[str, Any]) -> Facts | None:
    """Facts of the complete training in `folder` with this recipe and data, or None."""
    # slow to import, and needed only by the training process
    from caco_assets.pretraining.encoder.encoder import DESCRIPTION
    from caco_assets.pretraining.training.checkpoint import LAST

    outcome, description = read_outcome(folder), folder / DESCRIPTION
    if outcome["status"] != DONE or (folder / LAST).exists() or not description.exists():
        return None
    made = json.loads(description.read_text())
    same = json.loads(json.dumps([recipe, data])) == [made["recipe"], made["data"]]
    return outcome["facts"] if same else None
