"""Tells somebody what has happened in the registry: a command of the user's gets it as JSON. It may fail; nothing is undone."""

from __future__ import annotations

import json
import logging
import subprocess
from typing import Any

from caco_assets.registry.promotion.decision import Decision
from caco_assets.resources.mlflow.client import Tracking, redacted
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)


def notify(settings: Settings, tracking: Tracking, event: str, **facts: Any) -> bool:
    """Run `registry.notify` with one JSON object on its standard input.

    Args:
        settings: the command (no shell, so nothing of the message is ever read as one) and how long it may take.
        tracking: named without credentials.
        event: `promoted`, `overridden`, `refused`, `rolled back`, `by hand`.
        facts: more fields of the object.

    Returns:
        Whether there is a command and it succeeded.
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
        problem = " ".join(str(error).split())
    else:
        if done.returncode == 0:
            return True
        problem = f"{command[0]} ended with {done.returncode}: {' '.join(done.stderr.split())}"
    # the command's own arguments may hold what a log must not
    for argument in command[1:]:
        problem = problem.replace(argument, "…")
    logger.info(f"WARNING: {model}: nobody was told of '{event}' (registry.notify: {problem[:300]}); nothing is undone")
    return False


def told(decision: Decision) -> dict[str, Any]:
    """What a message says of a decision."""
    return {
        "version": decision.version,
        "uri": f"models:/{decision.model}/{decision.version}",
        "compared_with": decision.champion,
        "passed": decision.passed,
        "failed": [finding.rule for finding in decision.failed],
        "verdict": decision.text(),
        "rules": [finding.row() for finding in decision.findings],
    }
