"""From data to versions: which were trained on some bytes, and which would be affected if those were withdrawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from caco_assets.core.errors import UserError
from caco_assets.registry.lineage.record import Lineage, read
from caco_assets.registry.registry_lock import is_lock
from caco_assets.registry.versions import versions
from caco_assets.resources.dvc.repo import history
from caco_assets.resources.mlflow.client import Tracking
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

# Shorter prefixes are ambiguous.
_MIN_LENGTH = 6
_SHOWN = 5
# Products that weights are learned from. The others are only read (a probe set) or made from the weights (scores).
_LEARNED_FROM = {"locations", "catalog", "scenes", "archive", "quarantine", "pack", "parent"}


@dataclass(frozen=True)
class Use:
    """The uses of some bytes."""

    hash: str
    names: tuple[str, ...]
    """Such as `archive/shard=0003 of tiny`."""
    trained: tuple[str, ...]
    """URIs of the versions that were trained on them."""
    inherited: tuple[str, ...]
    """URIs of their descendants by warm start."""

    @property
    def touched(self) -> tuple[str, ...]:
        """The versions that would have to be retrained without these bytes."""
        return self.trained + self.inherited

    def text(self) -> str:
        """For people."""
        lines = [self.hash, *(f"  is {name}" for name in self.names)]
        if not self.touched:
            return "\n".join([*lines, "  no registered version was trained on it"])
        lines += [f"  {uri} was trained on it" for uri in self.trained]
        lines += [f"  {uri} was warm-started from such a version or a descendant" for uri in self.inherited]
        count = len(self.touched)
        return "\n".join([*lines, f"  withdrawing it would affect {count} registered version{'s' if count > 1 else ''}"])


def all_lineages(tracking: Tracking) -> list[tuple[ModelVersion, Lineage]]:
    """Every version of every model with its record.

    Raises:
        UserError: the registry or a record cannot be read.
    """
    names: list[str] = []
    token = None
    while True:
        page = tracking.client.search_registered_models(page_token=token)
        names += [model.name for model in page if not is_lock(model.name)]
        if not (token := page.token):
            break
    return [(version, read(tracking, version)) for name in names for version in versions(tracking, name)]


def use_of(settings: Settings, tracking: Tracking, digest: str) -> Use:
    """The uses of the bytes with an MD5 hash.

    Args:
        settings: the profile, whose home's Git history is searched too.
        tracking: the server.
        digest: MD5 of a product, a shard or a file, as DVC and Dagster show it, or its first characters.

    Raises:
        UserError: nothing has that hash, it is too short, or it is ambiguous.
    """
    if len(digest) < _MIN_LENGTH:
        raise UserError(f"{digest}: too short for a hash; give at least {_MIN_LENGTH} characters")
    found: dict[str, set[str]] = {}
    users: dict[str, set[str]] = {}
    known = all_lineages(tracking)
    for version, lineage in known:
        for md5, name, learned in _named(lineage):
            if md5.startswith(digest):
                found.setdefault(md5, set()).add(name)
                users.setdefault(md5, set()).update({_uri(version)} if learned else ())
    for entry in history(settings):
        if entry["md5"].startswith(digest):
            name = f"{entry['path']}, committed in this home on {entry['when'][:10]}"
            found.setdefault(entry["md5"], {name})
    if not found:
        raise UserError(
            f"{digest}: no product, shard or file of a registered version has this hash, and none was committed in this home; "
            "`caco lineage models:/NAME/VERSION --json` lists those of a version"
        )
    if len(found) > 1:
        shown = ", ".join(sorted(found)[:_SHOWN])
        raise UserError(
            f"{digest}: matches {len(found)} hashes ({shown}{', …' if len(found) > _SHOWN else ''}); give more characters"
        )
    ((md5, names),) = found.items()
    trained = [_uri(version) for version, _ in known if _uri(version) in users.get(md5, ())]
    return Use(md5, tuple(sorted(names)), tuple(trained), tuple(_descendants(known, set(trained))))


def _named(lineage: Lineage) -> Iterator[tuple[str, str, bool]]:
    """MD5, name and whether weights were learned from it, of everything in a version's record."""
    for name, product in lineage.products.items():
        yield product["content_hash"], f"{name} of {lineage.profile}", name.partition("/")[0] in _LEARNED_FROM
    for path, out in lineage.outs.items():
        name = Path(path).stem
        yield out["md5"], f"{name} of {lineage.profile}", name in _LEARNED_FROM
        for file, md5 in lineage.files.get(out["md5"], {}).items():
            yield md5, f"{path}/{file}", name in _LEARNED_FROM


def _descendants(known: list[tuple[ModelVersion, Lineage]], trained: set[str]) -> list[str]:
    """Versions that were warm-started from one of `trained`, directly or not, in the order of registration."""
    descendants: list[str] = []
    family, before = set(trained), -1
    while len(family) != before:
        before = len(family)
        for version, lineage in known:
            if lineage.parent and lineage.parent["uri"] in family and _uri(version) not in family:
                family.add(_uri(version))
                descendants.append(_uri(version))
    return descendants


def _uri(version: ModelVersion) -> str:
    return f"models:/{version.name}/{version.version}"
