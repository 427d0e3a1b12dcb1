"""State of a run in files beside its folder: a lock, so that two runs never write into one folder, and the outcome."""

from __future__ import annotations

import fcntl
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts

logger = logging.getLogger(__name__)


DONE, ERROR, STOPPED = "done", "error", "stopped"
# A training whose starter was killed stops at its next step; one that continues has another starter.
_PATIENCE_S = 60.0


def sidecar_file(folder: Path, what: str) -> Path:
    """A file of the run in `folder` that is not part of its product; the product's clean-up removes it."""
    return folder.with_name(f"{folder.name}.{what}")


@contextmanager
def training_lock(folder: Path, patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """Hold the folder's lock; it is released when the process ends, however that happens.

    Raises:
        UserError: another training holds it, and does not stop.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    deadline, logged = time.monotonic() + patience_s, False
    with sidecar_file(folder, "lock").open("w") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(f"{folder}: another training is running there; wait for it or stop it") from None
            if not logged:
                logger.info(f"pretrain: another training is running in {folder}; waiting up to {patience_s:.0f} s for it to stop")
                logged = True
            time.sleep(0.2)
        yield


def write_outcome(folder: Path, status: str, **fields: Any) -> None:
    """Write how the training in `folder` ended: `done` (facts), `error` (message) or `stopped` (signum)."""
    text = json.dumps({"status": status, **fields}, indent=1, default=lambda value: value.tolist())
    write_atomic(sidecar_file(folder, "outcome.json"), text + "\n")


def read_outcome(folder: Path) -> dict[str, Any]:
    """What `write_outcome` wrote; without it there is no status."""
    file = sidecar_file(folder, "outcome.json")
    return json.loads(file.read_text()) if file.exists() else {"status": None}


def forget_outcome(folder: Path) -> None:
    """Remove the outcome of an earlier training, before another starts."""
    sidecar_file(folder, "outcome.json").unlink(missing_ok=True)


def finished(folder: Path, recipe: dict[str, Any], data: dict[str, Any]) -> Facts | None:
    """Facts of a training of this recipe on this data that is complete in `folder`, if it is."""
    # heavy, and needed only by the process that trains
    from caco_assets.pretraining.encoder.encoder import DESCRIPTION
    from caco_assets.pretraining.training.checkpoint import LAST

    outcome, description = read_outcome(folder), folder / DESCRIPTION
    if outcome["status"] != DONE or (folder / LAST).exists() or not description.exists():
        return None
    made = json.loads(description.read_text())
    same = json.loads(json.dumps([recipe, data])) == [made["recipe"], made["data"]]
    return outcome["facts"] if same else None
