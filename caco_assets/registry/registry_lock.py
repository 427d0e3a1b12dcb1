"""One mover of aliases at a time, on all machines that share an MLflow server: a lock that the server itself grants.

MLflow has no compare-and-swap. It has one thing that only one of many can do: give a registered model a name that none has yet
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
"""Tags of the lock: who holds it, for people; which holding it is; the workspace it is held from."""
HOLD_S = 20.0
"""A holder begins no move later than this after it got the lock. Moves take milliseconds."""
STALE_S = 150.0
"""A lock that stood unchanged for so long is of a process that has died. More than `HOLD_S` and one request with its repetitions
(three times 30 s and the pauses between): a holder that is merely slow is never robbed. Each side reads its own clock only."""
_PAUSE_S = 0.05


@dataclass(frozen=True)
class Lease:
    """The lock, held."""

    tracking: Tracking
    name: str
    token: str
    since: float

    def check(self) -> None:
        """Call before each move.

        Raises:
            UserError: it has been held for too long (a machine that slept): somebody else may hold it by now.
        """
        if time.monotonic() - self.since > HOLD_S:
            raise UserError(f"{self.name}: the registry's lock was held for more than {HOLD_S:g} s; run the same command again")


@contextmanager
def lease(tracking: Tracking, model: str, *, wait: bool = True) -> Iterator[Lease]:
    """Hold the lock of a model on the server; callers hold `versions.registry_lock` of their workspace.

    Args:
        tracking: the server.
        model: whose aliases are to be moved; it exists.
        wait: False: do not.

    Raises:
        UserError: somebody else holds it and `wait` is false, or the server refuses.
    """
    name, token, place = f"{model}{SUFFIX}", uuid.uuid4().hex, _place(tracking)
    watched, since, told = None, time.monotonic(), False
    while not _take(tracking, name, token, place):
        held = _tags(tracking, name)
        if held is None:
            continue
        if held.get(TOKEN) != watched:
            watched, since = held.get(TOKEN), time.monotonic()
        # this workspace's own lock is ours already, so whoever took this one from here is dead
        if held.get(PLACE) == place or time.monotonic() - since > STALE_S:
            logger.info(
                f"{model}: the lock of {held.get(OWNER, 'nobody')} is left over from a process that has died; it is removed"
            )
            if not _break(tracking, name, held.get(TOKEN, "")):
                time.sleep(_PAUSE_S)
                if time.monotonic() - since > 2 * STALE_S:
                    # whoever was chosen to remove it has died as well
                    _remove(tracking, _mark(name, held.get(TOKEN, "")))
            continue
        if not wait:
            raise UserError(f"{model}: {held.get(OWNER, 'somebody')} is moving its aliases")
        if not told:
            logger.info(f"{model}: {held.get(OWNER, 'somebody')} is moving its aliases; waiting for it (at most {STALE_S:g} s)")
            told = True
        time.sleep(_PAUSE_S)
    held_lease = Lease(tracking, name, token, time.monotonic())
    try:
        yield held_lease
    finally:
        # too late: the next one breaks it after watching; removing it now might remove the lock of another
        with suppress(UserError):
            held_lease.check()
            _remove(tracking, name)


def is_lock(model: str) -> bool:
    """Whether a registered model is a lock (or the mark of one that was broken)."""
    return model.endswith(SUFFIX) or f"{SUFFIX}.broken-" in model


def _take(tracking: Tracking, name: str, token: str, place: str) -> bool:
    """Whether the name was free and is ours now."""
    tags = {OWNER: f"process {os.getpid()} on {socket.gethostname()}", TOKEN: token, PLACE: place}
    said = "Held while aliases are moved, for some milliseconds. If it stays for minutes, its holder has died; it may be deleted."
    try:
        tracking.client.create_registered_model(name, tags=tags, description=said)
    except RequestRefusedError as error:
        # MLflow looks at the name that was taken, which may be free again by then
        if error.code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
            raise
    # a request that was repeated meets what its first try has made
    held = _tags(tracking, name)
    return held is not None and held.get(TOKEN) == token


def _break(tracking: Tracking, name: str, token: str) -> bool:
    """Remove the lock `token`. Of several that want to, one is chosen, again by a name that only one can give: was it us?"""
    mark = _mark(name, token)
    if not _take(tracking, mark, uuid.uuid4().hex, ""):
        return False
    try:
        # only after being chosen: another may have been chosen, and done, before
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
    """This workspace and no other: a copy of it has another inode, another machine that mounts it another name."""
    file = tracking.state / "locks" / "place"
    file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), file.open("x") as stream:
        stream.write(uuid.uuid4().hex)
    return f"{socket.gethostname()} {file.stat().st_ino} {file.read_text()}"
