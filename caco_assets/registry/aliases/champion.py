"""Sets the aliases: the challenger, a champion whose gate has passed, and the rollback to the previous champion."""

from __future__ import annotations

import logging

from caco_assets.core.errors import UserError
from caco_assets.registry.aliases.alias_history import AliasMove, Serving
from caco_assets.registry.aliases.alias_moves import (
    OVERRIDDEN,
    PASSED,
    PROMOTED,
    ROLLED_BACK,
    WITHDRAWN,
    AliasWriter,
    alias_writer,
    apply_move,
    log_move,
)
from caco_assets.registry.aliases.notify import notify_move
from caco_assets.registry.aliases.user import current_user
from caco_assets.registry.package.mlflow_model import load_version
from caco_assets.registry.versions import CHALLENGER, GATE, find, local_lock
from caco_assets.resources.mlflow.client import Tracking
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)

_MAX_REASON = 500


def challenge(tracking: Tracking, model: str, version: str) -> None:
    """Make `version` the challenger; callers hold `versions.local_lock`."""
    tracking.client.set_registered_model_alias(model, CHALLENGER, version)


def promote(writer: AliasWriter, version: str, reason: str) -> AliasMove:
    """Make `version` the champion; `previous` moves to the champion that it replaces.

    Raises:
        UserError: the version has not passed its gate, or the move failed.
    """
    gate = find(writer.lock.tracking, f"models:/{writer.model}/{version}").tags.get(GATE)
    if gate not in (PASSED, OVERRIDDEN):
        raise UserError(f"models:/{writer.model}/{version}: has not passed the promotion policy; decide on it first")
    before = writer.serving
    previous = before.previous if before.champion in (None, version) else before.champion
    what = PROMOTED if gate == PASSED else OVERRIDDEN
    move = AliasMove.now(what, before, Serving(version, previous), current_user(), reason)
    apply_move(writer, move)
    return move


def rollback(settings: Settings, tracking: Tracking, *, reason: str, restore: bool = False) -> AliasMove:
    """Swap champion and previous, and notify; the replaced version is withdrawn and not promoted again.

    Args:
        settings: the profile; `registry.model` is the model.
        tracking: the server.
        reason: why; kept in the tags of model and version and in the runs.
        restore: also when the previous champion was itself withdrawn by a rollback. Without it, two users who answer the same alarm
            would put the bad version back between them.

    Returns:
        The move that was made.

    Raises:
        UserError: no reason; there is no previous champion; it has not passed its gate, is withdrawn, or does not load.
    """
    model, reason = settings.registry.model, checked_reason(reason)
    with local_lock(tracking, model), alias_writer(tracking, model) as writer:
        champion, previous = writer.serving.champion, writer.serving.previous
        if previous is None or previous == champion:
            raise UserError(f"{model}: no previous champion to return to (champion: {champion or 'none'})")
        version = find(tracking, f"models:/{model}/{previous}")
        if WITHDRAWN in version.tags and not restore:
            raise UserError(
                f"models:/{model}/{previous}: was withdrawn ({version.tags[WITHDRAWN]}); to put it back into service: --restore"
            )
        if version.tags.get(GATE) not in (PASSED, OVERRIDDEN):
            raise UserError(f"models:/{model}/{previous}: has not passed the promotion policy, so it cannot serve")
        load_version(tracking, version)
        more = {"withdraw": champion, "restore": previous}
        move = AliasMove.now(ROLLED_BACK, writer.serving, Serving(previous, champion), current_user(), reason, **more)
        apply_move(writer, move)
    log_move(tracking, model, move)
    logger.info(f"{model}: version {previous} serves again, version {champion} is withdrawn")
    notify_move(settings, tracking, move)
    return move


def checked_reason(reason: str) -> str:
    """A reason on one line.

    Raises:
        UserError: it is empty or too long.
    """
    line = " ".join(reason.split())
    if not line:
        raise UserError("--reason: say why in a few words; it is kept with the version")
    if len(line) > _MAX_REASON:
        raise UserError(f"--reason: {len(line)} characters; at most {_MAX_REASON}")
    return line
