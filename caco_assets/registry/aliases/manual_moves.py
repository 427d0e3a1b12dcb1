"""Detects moves of the aliases that a user made in MLflow, and notifies of them."""

from __future__ import annotations

from caco_assets.registry.aliases.alias_moves import AliasWriter, ManualMove, settle
from caco_assets.registry.aliases.notify import notify_move
from caco_assets.resources.mlflow.client import Tracking
from caco_assets.settings import Settings


def check_aliases(settings: Settings, tracking: Tracking) -> ManualMove | None:
    """Record and notify of a manual move, and complete an interrupted one; does not wait for a decision in progress.

    Raises:
        UserError: a decision is in progress, or the server refuses.
    """
    writer = settle(tracking, settings.registry.model, wait=False)
    notify_manual_move(settings, tracking, writer)
    return writer.manual_move


def notify_manual_move(settings: Settings, tracking: Tracking, writer: AliasWriter) -> None:
    """Notify of the manual move that `writer` has recorded, if there is one."""
    if (manual := writer.manual_move) is not None:
        notify_move(settings, tracking, manual.move, warnings=[manual.text])
