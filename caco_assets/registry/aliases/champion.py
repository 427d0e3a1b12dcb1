"""Who serves: puts a version that passed its gate into service, or the one before back. Callers hold `versions.registry_lock`."""

from __future__ import annotations

import logging

from caco_assets.core.errors import UserError
from caco_assets.registry.aliases.alias_history import Move, Serving
from caco_assets.registry.aliases.alias_moves import (
    OVERRIDDEN,
    PASSED,
    PROMOTED,
    ROLLED_BACK,
    WITHDRAWN,
    Mover,
    carry_out,
    log_move,
    moving,
)
from caco_assets.registry.aliases.user import who
from caco_assets.registry.package.mlflow_model import load_version
from caco_assets.registry.versions import CHALLENGER, GATE, find, registry_lock
from caco_assets.resources.mlflow.client import Tracking

logger = logging.getLogger(__name__)

_LONGEST_REASON = 500


def challenge(tracking: Tracking, model: str, version: str) -> None:
    """Make `version` the challenger."""
    tracking.client.set_registered_model_alias(model, CHALLENGER, version)


def promote(mover: Mover, version: str, reason: str) -> Move:
    """Make `version` the champion, and the champion the previous one; `previous` goes to the champion it replaces.

    Raises:
        UserError: the version has not passed its gate, or the move failed.
    """
    gate = find(mover.held.tracking, f"models:/{mover.model}/{version}").tags.get(GATE)
    if gate not in (PASSED, OVERRIDDEN):
        raise UserError(f"models:/{mover.model}/{version}: has not passed the promotion policy; decide on it first")
    before = mover.serving
    previous = before.previous if before.champion in (None, version) else before.champion
    what = PROMOTED if gate == PASSED else OVERRIDDEN
    move = Move.now(what, before, Serving(version, previous), who(), reason)
    carry_out(mover, move)
    return move


def rollback(tracking: Tracking, model: str, reason: str, *, restore: bool = False) -> Move:
    """Swap champion and previous; the version taken out is marked as withdrawn and not promoted again.

    Args:
        tracking: the server.
        model: whose aliases are swapped.
        reason: why; kept in the tags of model and version and in the runs.
        restore: also when the previous champion is itself one that a rollback withdrew: two people who answer the same alarm must
            not put the bad one back between them.

    Returns:
        The move that was made.

    Raises:
        UserError: no reason; there is no previous champion; it has not passed its gate, is withdrawn, or does not load.
    """
    reason = checked_reason(reason)
    with registry_lock(tracking, model), moving(tracking, model) as mover:
        champion, previous = mover.serving.champion, mover.serving.previous
        if previous is None or previous == champion:
            raise UserError(f"{model}: there is no previous champion to go back to (champion: {champion or 'none'})")
        version = find(tracking, f"models:/{model}/{previous}")
        if WITHDRAWN in version.tags and not restore:
            said = version.tags[WITHDRAWN]
            raise UserError(
                f"models:/{model}/{previous}: was withdrawn ({said}); to put it back in service all the same: --restore"
            )
        if version.tags.get(GATE) not in (PASSED, OVERRIDDEN):
            raise UserError(f"models:/{model}/{previous}: has not passed the policy; it cannot serve")
        load_version(tracking, version)
        more = {"withdraw": champion, "restore": previous}
        move = Move.now(ROLLED_BACK, mover.serving, Serving(previous, champion), who(), reason, **more)
        carry_out(mover, move)
    log_move(tracking, model, move)
    logger.info(f"{model}: version {previous} serves again, version {champion} is withdrawn")
    return move


def checked_reason(reason: str) -> str:
    """A reason of one line.

    Raises:
        UserError: there is none, or it is a story.
    """
    line = " ".join(reason.split())
    if not line:
        raise UserError("--reason: say why in a few words; it is kept with the version")
    if len(line) > _LONGEST_REASON:
        raise UserError(f"--reason: {len(line)} characters; at most {_LONGEST_REASON}")
    return line
