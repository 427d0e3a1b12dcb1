"""The history of a model's aliases: which version served, since when, moved by whom and why; a tag of the registered model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from caco_assets.registry.registry_lock import RegistryLock
from caco_assets.registry.versions import CHAMPION, PREVIOUS, registered_tags
from caco_assets.resources.mlflow.client import Tracking

HISTORY = "alias_history"
"""The tag."""
# MLflow's databases take 5000 characters in a tag of a registered model; the oldest moves are dropped first (the runs keep them)
_HISTORY_LENGTH = 4900


@dataclass(frozen=True)
class Serving:
    """Version numbers behind the two aliases; None: the alias is not set."""

    champion: str | None
    previous: str | None

    @classmethod
    def of(cls, aliases: Mapping[str, str]) -> Serving:
        """From all aliases of a model."""
        return cls(aliases.get(CHAMPION), aliases.get(PREVIOUS))


@dataclass(frozen=True)
class AliasMove:
    """One change of `champion` and `previous`."""

    what: str
    """`promoted`, `overridden`, `rolled back`, `by hand` (a user in MLflow), `found` (older than the history)."""
    before: Serving
    after: Serving
    by: str
    reason: str
    at: str
    """UTC, ISO 8601, seconds."""
    withdraw: str | None = None
    """Version withdrawn from service."""
    restore: str | None = None
    """Version that is no longer withdrawn."""

    @classmethod
    def now(cls, what: str, before: Serving, after: Serving, by: str, reason: str, **more: str | None) -> AliasMove:
        """A move with the current time."""
        return cls(what, before, after, by, reason, datetime.now(UTC).isoformat(timespec="seconds"), **more)

    @classmethod
    def of(cls, fields: Mapping[str, object]) -> AliasMove:
        """The inverse of `asdict`."""
        values = {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}
        return cls(**{**values, "before": Serving(**values["before"]), "after": Serving(**values["after"])})  # pyright: ignore


def history(tracking: Tracking, model: str) -> list[AliasMove]:
    """The last moves, oldest first."""
    return [AliasMove.of(fields) for fields in json.loads(registered_tags(tracking, model).get(HISTORY, "[]"))]


def record_move(lock: RegistryLock, model: str, move: AliasMove) -> None:
    """Append a move to the history, once."""
    moves = [asdict(known) for known in history(lock.tracking, model)]
    if moves and moves[-1] == asdict(move):
        return
    moves.append(asdict(move))
    while len(text := json.dumps(moves, separators=(",", ":"), ensure_ascii=True)) > _HISTORY_LENGTH and len(moves) > 1:
        moves.pop(0)
    lock.tracking.client.set_registered_model_tag(model, HISTORY, text)
