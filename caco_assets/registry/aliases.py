"""Moves the aliases `challenger`, `champion` and `previous`. Callers hold `versions.registry_lock`."""

from __future__ import annotations

from datetime import UTC, datetime

from caco_assets.errors import UserError
from caco_assets.progress import Say, to_stderr
from caco_assets.registry.packaged_encoder import load_version
from caco_assets.registry.versions import CHALLENGER, CHAMPION, GATE, PREVIOUS, aliases, find, registry_lock
from caco_assets.resources.mlflow import Tracking

WITHDRAWN = "withdrawn"
"""Tag: when a rollback took the version out of service. It is not promoted again."""


def challenge(tracking: Tracking, model: str, version: str) -> None:
    """Make `version` the challenger."""
    with tracking.explained():
        tracking.client.set_registered_model_alias(model, CHALLENGER, version)


def promote(tracking: Tracking, model: str, version: str) -> None:
    """Make `version` the champion, and the champion the previous one.

    Raises:
        UserError: the version has not passed its gate.
    """
    if find(tracking, f"models:/{model}/{version}").tags.get(GATE) != "passed":
        raise UserError(f"models:/{model}/{version}: has not passed the promotion policy; decide on it first")
    old = aliases(tracking, model).get(CHAMPION)
    with tracking.explained():
        # `previous` first: a crash in between leaves the old champion in service
        if old is not None and old != version:
            tracking.client.set_registered_model_alias(model, PREVIOUS, old)
        tracking.client.set_registered_model_alias(model, CHAMPION, version)


def rollback(tracking: Tracking, model: str, say: Say = to_stderr) -> str:
    """Put the previous champion back in service; the version taken out is marked and not promoted again.

    Returns:
        The version that serves now.

    Raises:
        UserError: there is no previous champion, it has not passed its gate, or it does not load.
    """
    with registry_lock(tracking, model, say):
        known = aliases(tracking, model)
        previous, champion = known.get(PREVIOUS), known.get(CHAMPION)
        if previous is None or previous == champion:
            raise UserError(f"{model}: there is no previous champion to go back to (champion: {champion or 'none'})")
        version = find(tracking, f"models:/{model}/{previous}")
        if version.tags.get(GATE) != "passed" or WITHDRAWN in version.tags:
            raise UserError(f"models:/{model}/{previous}: has not passed the policy or was withdrawn; it cannot serve")
        load_version(tracking, version)
        with tracking.explained():
            if champion is not None:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                tracking.client.set_model_version_tag(model, champion, WITHDRAWN, now)
            tracking.client.set_registered_model_alias(model, CHAMPION, previous)
            tracking.client.delete_registered_model_alias(model, PREVIOUS)
    say(f"{model}: version {previous} serves again, version {champion} is withdrawn")
    return previous
