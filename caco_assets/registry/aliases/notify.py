"""Notifies of registry events: runs the user's command with the event as JSON. A failure is logged and undoes nothing."""

from __future__ import annotations

import json
import logging
import subprocess
from dataclasses import asdict
from typing import Any

from caco_assets.core.errors import one_line
from caco_assets.registry.aliases.alias_history import AliasMove
from caco_assets.resources.mlflow.client import Tracking, redacted
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)


def notify(settings: Settings, tracking: Tracking, event: str, **facts: Any) -> bool:
    """Run `registry.notify` with one JSON object on its standard input.

    Args:
        settings: the command (run without a shell, so nothing in the message is interpreted) and its time limit.
        tracking: named without credentials.
        event: `promoted`, `overridden`, `refused`, `rolled back`, `by hand`.
        facts: more fields of the object.

    Returns:
        Whether a command is set and it succeeded.
    """
    command = settings.registry.notify
    if not command:
        return False
    model = settings.registry.model
    about = {"event": event, "model": model, "profile": settings.profile, "tracking": redacted(tracking.uri), **facts}
    text = json.dumps(about, ensure_ascii=False, default=str)
    try:
        done = subprocess.run(
            list(command), input=text, text=True, capture_output=True, check=False, timeout=settings.registry.notify_timeout_s
        )
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        problem = str(error)
    else:
        if done.returncode == 0:
            return True
        problem = f"{command[0]} ended with {done.returncode}: {done.stderr}"
    problem = " ".join(problem.split())
    # the command's own arguments may hold secrets
    for argument in command[1:]:
        problem = problem.replace(argument, "…")
    logger.warning(f"{model}: notification failed for '{event}' (registry.notify: {one_line(problem)}); nothing is undone")
    return False


def notify_move(settings: Settings, tracking: Tracking, move: AliasMove, **more: object) -> None:
    """Notify of a move that no decision made."""
    uri = f"models:/{settings.registry.model}/{move.after.champion}"
    notify(settings, tracking, move.what, version=move.after.champion, uri=uri, **asdict(move), **more)
