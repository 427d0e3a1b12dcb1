"""Moves the aliases `champion` and `previous`; completes interrupted moves and records moves made by hand in MLflow.

The alias `champion` moves in one request, and that request decides. The tag `alias_intent` is set before it; `previous`, the tags
and the history follow it. A process that finds an intent compares it with the champion: it completes the move, or drops it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from caco_assets.core.errors import UserError
from caco_assets.registry.aliases.alias_history import AliasMove, Serving, history, record_move
from caco_assets.registry.package.mlflow_model import load_version
from caco_assets.registry.registry_lock import RegistryLock, registry_lock
from caco_assets.registry.versions import CHAMPION, GATE, PREVIOUS, aliases, find, local_lock, registered_tags
from caco_assets.resources.mlflow.client import ServerAwayError, Tracking

logger = logging.getLogger(__name__)

INTENT = "alias_intent"
"""Tag of the registered model: the move in progress."""
WITHDRAWN = "withdrawn"
"""Tag of a version: when, by whom and why a rollback withdrew it from service. It is not promoted again."""
BY_HAND = "champion_by_hand"
"""Tag of a version: when it was detected that a user had moved the champion to it."""
PASSED, FAILED, OVERRIDDEN = "passed", "failed", "overridden"
"""Values of the tag `gate`."""
PROMOTED, ROLLED_BACK, MOVED_BY_HAND, FOUND = "promoted", "rolled back", "by hand", "found"


@dataclass(frozen=True)
class ManualMove:
    """A move that a user made in MLflow; it stands, whatever the gate says."""

    move: AliasMove
    text: str
    """For people, one line."""
    unfit: bool
    """The champion should not serve, and `text` says why."""


@dataclass(frozen=True)
class AliasWriter:
    """The right to move a model's aliases, and what serves now."""

    lock: RegistryLock
    model: str
    serving: Serving
    manual_move: ManualMove | None = None
    """What a user moved since the last time."""


@contextmanager
def alias_writer(tracking: Tracking, model: str, *, wait: bool = True) -> Iterator[AliasWriter]:
    """Hold the registry lock of a model whose aliases are consistent: an interrupted move is completed, a manual one recorded.

    Callers hold `versions.local_lock`.

    Raises:
        UserError: as `registry_lock`.
    """
    with registry_lock(tracking, model, wait=wait) as lock:
        _complete_interrupted_move(lock, model)
        manual = _record_manual_move(lock, model)
        yield AliasWriter(lock, model, Serving.of(aliases(tracking, model)), manual)


def settle(tracking: Tracking, model: str, *, wait: bool = True) -> AliasWriter:
    """What serves now, after completing and recording as `alias_writer` does; empty for a model that does not exist."""
    with local_lock(tracking, model, wait=wait), alias_writer(tracking, model, wait=wait) as writer:
        return writer


def apply_move(writer: AliasWriter, move: AliasMove) -> None:
    """Make a move; call `log_move` after releasing the lock.

    Raises:
        UserError: the lock was held for too long, or the server refuses; the next user of the registry completes or drops the move.
    """
    lock, model = writer.lock, writer.model
    lock.check()
    lock.tracking.client.set_registered_model_tag(model, INTENT, json.dumps(asdict(move)))
    lock.check()
    _set_alias(lock, model, CHAMPION, move.after.champion)
    _complete(lock, model, move)


def _complete(lock: RegistryLock, model: str, move: AliasMove) -> None:
    """Everything that follows the champion's move; idempotent."""
    client, at = lock.tracking.client, f"{move.at} by {move.by}: {move.reason}"
    _set_alias(lock, model, PREVIOUS, move.after.previous)
    if move.withdraw is not None:
        client.set_model_version_tag(model, move.withdraw, WITHDRAWN, at)
    if move.restore is not None and WITHDRAWN in client.get_model_version(model, move.restore).tags:
        client.delete_model_version_tag(model, move.restore, WITHDRAWN)
    record_move(lock, model, move)
    client.delete_registered_model_tag(model, INTENT)


def _complete_interrupted_move(lock: RegistryLock, model: str) -> None:
    text = registered_tags(lock.tracking, model).get(INTENT)
    if text is None:
        return
    move, champion = AliasMove.of(json.loads(text)), aliases(lock.tracking, model).get(CHAMPION)
    if champion == move.after.champion:
        logger.info(f"{model}: '{move.what}' of version {champion} was interrupted after the champion had moved; completing it")
        _complete(lock, model, move)
    else:
        version = move.after.champion
        logger.info(f"{model}: '{move.what}' of version {version} was interrupted before the champion moved; decide again")
        lock.tracking.client.delete_registered_model_tag(model, INTENT)


def _record_manual_move(lock: RegistryLock, model: str) -> ManualMove | None:
    """Record what a user moved since the last move of the history, if anything."""
    tracking, known = lock.tracking, history(lock.tracking, model)
    now = Serving.of(aliases(tracking, model))
    before = known[-1].after if known else Serving(None, None)
    if now == before:
        return None
    new_champion = now.champion if now.champion != before.champion else None
    problem = unfit(tracking, model, new_champion) if new_champion is not None else None
    what = FOUND if not known and problem is None else MOVED_BY_HAND
    move = AliasMove.now(what, before, now, "unknown", "the aliases are not where they were put")
    if what == MOVED_BY_HAND and new_champion is not None:
        tracking.client.set_model_version_tag(model, new_champion, BY_HAND, move.at)
    record_move(lock, model, move)
    if what == FOUND:
        return None
    text = f"{model}: champion {before.champion or 'none'} → {now.champion or 'none'}, previous {before.previous or 'none'} → "
    text += f"{now.previous or 'none'}: moved by hand; the move stands"
    if problem is not None:
        text += f", but version {now.champion} {problem}; `caco rollback` or a promotion withdraws it from service"
    logger.log(logging.INFO if problem is None else logging.WARNING, text)
    return ManualMove(move, text, problem is not None)


def unfit(tracking: Tracking, model: str, version: str) -> str | None:
    """Why a version should not serve: its gate, a rollback, or its files; None: it may."""
    found = find(tracking, f"models:/{model}/{version}")
    if WITHDRAWN in found.tags:
        return f"was withdrawn ({found.tags[WITHDRAWN]})"
    if (gate := found.tags.get(GATE)) not in (PASSED, OVERRIDDEN):
        return "has failed the promotion policy" if gate == FAILED else "has no decision by the promotion policy"
    try:
        load_version(tracking, found)
    except ServerAwayError:
        raise
    except UserError as error:
        return f"does not load ({error})"
    return None


def _set_alias(lock: RegistryLock, model: str, alias: str, version: str | None) -> None:
    if version is None:
        lock.tracking.client.delete_registered_model_alias(model, alias)
    else:
        lock.tracking.client.set_registered_model_alias(model, alias, version)


def log_move(tracking: Tracking, model: str, move: AliasMove) -> None:
    """Log a move as a file to the runs of its versions. The move has already been made, so a failure is only logged."""
    name = f"decision/{move.at.replace(':', '')}-{move.what.replace(' ', '-')}.json"
    for version in {move.after.champion, move.before.champion} - {None}:
        try:
            run_id = find(tracking, f"models:/{model}/{version}").run_id
            if run_id:
                tracking.client.log_text(run_id, json.dumps(asdict(move), indent=1) + "\n", name)
        except UserError as error:
            logger.warning(f"{model}: the move is done, but it could not be logged to the run of version {version} ({error})")
