"""Versions of a registered model: look-up by number or alias, listing, and the names of their tags."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caco_assets.core.errors import UserError
from caco_assets.core.file_lock import file_lock
from caco_assets.registry.registry_lock import is_lock
from caco_assets.resources.mlflow.client import RequestRefusedError, Tracking

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"

# Tags of a version.
IDENTITY = "encoder_identity"
"""SHA-256 of architecture, preprocessing and weights."""
DATA = "data."
"""Prefix: product → content hash."""
SCORES = "scores"
"""Main figures on one line."""
GATE = "gate"
"""`passed`, `failed` or `overridden`: the last decision on it."""
DECISION = "decision"
"""The decision as JSON."""


@dataclass(frozen=True)
class ModelUri:
    """The parts of `models:/name@alias` or `models:/name/3`."""

    name: str
    version: str | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, uri: str) -> ModelUri:
        """Split a model URI.

        Raises:
            UserError: it is not one.
        """
        name, at, alias = uri.removeprefix("models:/").partition("@")
        if at and name and alias:
            return cls(name, alias=alias)
        name, _, version = name.rpartition("/")
        if not uri.startswith("models:/") or not name or not version.isdigit():
            raise UserError(f"{uri}: not a model URI; write models:/name@champion, models:/name/3 or a folder")
        return cls(name, version=version)


def find(tracking: Tracking, uri: str) -> ModelVersion:
    """The version that a model URI names.

    Raises:
        UserError: no such model, alias or version; the message lists what exists.
    """
    wanted = ModelUri.parse(uri)
    model = _model(tracking, wanted.name)
    if model is None:
        names = sorted(known.name for known in tracking.client.search_registered_models() if not is_lock(known.name))
        raise UserError(f"{uri}: no model of that name is registered; {_listed(names)}")
    version = wanted.version or model.aliases.get(wanted.alias or "")
    if version is None:
        raise UserError(f"{uri}: the model has no alias {wanted.alias}; {_listed(sorted(model.aliases))}")
    known = {str(each.version): each for each in versions(tracking, wanted.name)}
    if str(version) not in known:
        raise UserError(f"{uri}: no such version; {_listed(list(known))}")
    return known[str(version)]


def versions(tracking: Tracking, model: str) -> list[ModelVersion]:
    """All versions of a model with their tags, oldest first; empty for an unknown model."""
    found: list[ModelVersion] = []
    token = None
    quoted = model.replace("'", "\\'")
    while True:
        page = tracking.client.search_model_versions(f"name='{quoted}'", max_results=200, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version))


def aliases(tracking: Tracking, model: str) -> dict[str, str]:
    """Alias → version number; empty for an unknown model."""
    known = _model(tracking, model)
    return {} if known is None else {alias: str(version) for alias, version in known.aliases.items()}


def registered_tags(tracking: Tracking, model: str) -> dict[str, str]:
    """Tags of the registered model itself, not of its versions; empty for an unknown model."""
    known = _model(tracking, model)
    return {} if known is None else dict(known.tags)


def unscored(tracking: Tracking, model: str) -> list[str]:
    """Numbers of the versions that have neither scores nor a decision: those that were registered elsewhere."""
    return [str(version.version) for version in versions(tracking, model) if not {SCORES, GATE} & version.tags.keys()]


def local_lock(tracking: Tracking, model: str, *, wait: bool = True) -> AbstractContextManager[None]:
    """One process or thread of this workspace at a time may register a version or move an alias of a model.

    Raises:
        UserError: on entry; another one does, and `wait` is false.
    """
    lock = tracking.state / "locks" / f"{model.replace('/', '_')}.lock"
    return file_lock(lock, f"registered model {model}", wait_s=None if wait else 0)


def _model(tracking: Tracking, name: str) -> RegisteredModel | None:
    try:
        return tracking.client.get_registered_model(name)
    except RequestRefusedError as error:
        if error.code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _listed(names: list[str]) -> str:
    return f"there are: {', '.join(names)}" if names else "there are none yet"
