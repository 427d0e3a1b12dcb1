"""The registry lock: one process at a time moves a model's aliases, on all machines that share an MLflow server.

MLflow has no compare-and-swap. The one thing that only one of several clients can do is to create a registered model of a new name
(a primary key of its database). So the lock of `caco-resnet18` is an empty registered model named `caco-resnet18.lock`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from caco_assets.core.errors import UserError
from caco_assets.resources.mlflow.client import RequestRefusedError, Tracking

logger = logging.getLogger(__name__)

SUFFIX = ".lock"
OWNER, TOKEN, PLACE = "owner", "token", "place"
"""Tags of the lock: its holder, for people; the id of this holding; the workspace of the holder."""
HOLD_S = 20.0
"""A holder starts no move later than this after it took the lock. Moves take milliseconds."""
STALE_S = 150.0
"""The holder of a lock that has not changed for so long has died. It exceeds `HOLD_S` plus one request with its retries (three
times 30 s and the pauses between), so a slow holder never loses its lock. Each side reads only its own clock."""
_PAUSE_S = 0.05


@dataclass(frozen=True)
class RegistryLock:
    """The lock, held."""

    tracking: Tracking
    name: str
    token: str
    since: float

    def check(self) -> None:
        """Call before each move.

        Raises:
            UserError: it has been held for too long (the machine slept): another process may hold it by now.
        """
        if time.monotonic() - self.since > HOLD_S:
            raise UserError(f"{self.name}: the registry lock was held for more than {HOLD_S:g} s; run the same command again")


@contextmanager
def registry_lock(tracking: Tracking, model: str, *, wait: bool = True) -> Iterator[RegistryLock]:
    """Hold the lock of a model on the server; callers hold the `local_lock` of their workspace.

    Args:
        tracking: the server.
        model: an existing model, whose aliases are to be moved.
        wait: for another holder.

    Raises:
        UserError: another process holds it and `wait` is false, or the server refuses.
    """
    name, token, place = f"{model}{SUFFIX}", uuid.uuid4().hex, _place(tracking)
    watched, since, logged = None, time.monotonic(), False
    while not _take(tracking, name, token, place):
        held = _tags(tracking, name)
        if held is None:
            continue
        if held.get(TOKEN) != watched:
            watched, since = held.get(TOKEN), time.monotonic()
        # we hold the local lock of this workspace, so a holder from the same workspace is dead
        if held.get(PLACE) == place or time.monotonic() - since > STALE_S:
            logger.info(f"{model}: removing the registry lock of {held.get(OWNER, 'an unknown process')}, which has died")
            if not _break(tracking, name, held.get(TOKEN, "")):
                time.sleep(_PAUSE_S)
                if time.monotonic() - since > 2 * STALE_S:
                    # the process that was to remove it has died as well
                    _remove(tracking, _mark(name, held.get(TOKEN, "")))
            continue
        if not wait:
            raise UserError(f"{model}: {held.get(OWNER, 'another process')} holds the registry lock")
        if not logged:
            holder = held.get(OWNER, "another process")
            logger.info(f"{model}: {holder} holds the registry lock; waiting (at most {STALE_S:g} s)")
            logged = True
        time.sleep(_PAUSE_S)
    lock = RegistryLock(tracking, name, token, time.monotonic())
    try:
        yield lock
    finally:
        # held for too long: the next process removes it; removing it here might remove the lock of another
        with suppress(UserError):
            lock.check()
            _remove(tracking, name)


def is_lock(model: str) -> bool:
    """Whether a registered model is a lock, or marks one that is being removed."""
    return model.endswith(SUFFIX) or f"{SUFFIX}.broken-" in model


def _take(tracking: Tracking, name: str, token: str, place: str) -> bool:
    """Whether the name was free and is now ours."""
    tags = {OWNER: f"process {os.getpid()} on {socket.gethostname()}", TOKEN: token, PLACE: place}
    description = "Held for milliseconds while aliases move. If it stays for minutes, its holder has died; it may be deleted."
    try:
        tracking.client.create_registered_model(name, tags=tags, description=description)
    except RequestRefusedError as error:
        # MLflow then looks up the name that was taken, which may be free again
        if error.code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
            raise
    # a repeated request finds what its first try has made
    held = _tags(tracking, name)
    return held is not None and held.get(TOKEN) == token


def _break(tracking: Tracking, name: str, token: str) -> bool:
    """Remove the lock `token`, unless another process does; whether this one did. A name that only one can create decides."""
    mark = _mark(name, token)
    if not _take(tracking, mark, uuid.uuid4().hex, ""):
        return False
    try:
        # look again: another process may have been chosen before and be done
        held = _tags(tracking, name)
        if held is not None and held.get(TOKEN, "") == token:
            _remove(tracking, name)
    finally:
        _remove(tracking, mark)
    return True


def _mark(name: str, token: str) -> str:
    return f"{name}.broken-{token}"


def _tags(tracking: Tracking, name: str) -> dict[str, str] | None:
    """Tags of a lock; None: there is none."""
    try:
        return tracking.client.get_registered_model(name).tags
    except RequestRefusedError as error:
        if error.code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _remove(tracking: Tracking, name: str) -> None:
    try:
        tracking.client.delete_registered_model(name)
    except RequestRefusedError as error:
        # a repeated request finds nothing left to do
        if error.code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _place(tracking: Tracking) -> str:
    """Identifies this workspace: a copy has another inode, and another machine that mounts it has another host name."""
    file = tracking.state / "locks" / "place"
    file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), file.open("x") as stream:
        stream.write(uuid.uuid4().hex)
    return f"{socket.gethostname()} {file.stat().st_ino} {file.read_text()}"
