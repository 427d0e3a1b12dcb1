"""The lineage record of a version: data, settings, code, environment and parent; enough to restore it all.

The record is a JSON file among the artifacts of the version's run, named after the SHA-256 of its bytes; a tag of the version
holds its path.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import caco_assets
from caco_assets.core.atomic import write_atomic
from caco_assets.core.environment import environment
from caco_assets.core.errors import UserError, one_line
from caco_assets.core.foreign_files import parse_json, read_object
from caco_assets.core.products import read_record
from caco_assets.core.stage_versions import stage_versions
from caco_assets.registry.versions import DATA, IDENTITY
from caco_assets.resources.dvc.object_db import listings
from caco_assets.resources.dvc.repo import stages_of
from caco_assets.resources.mlflow.client import Tracking, redacted
from caco_assets.resources.mlflow.runs import code_version
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

LINEAGE = "lineage"
"""Tag of a version: path of its record among the artifacts of its run."""
PARENT = "parent"
"""Tag: the warm-start parent."""
_SCHEMA = 1


@dataclass(frozen=True)
class Lineage:
    """The record of one version."""

    profile: str
    vintage: str
    code: str
    """Commit of the code, with `+changes` if the checkout had uncommitted changes."""
    package: str = ""
    """Version of `caco_assets`."""
    recipes: Mapping[str, str] = field(default_factory=dict)
    """Stage → stage version."""
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All settings, without the home folder, the tracking server and credentials."""
    encoder: Mapping[str, Any] = field(default_factory=dict)
    """`identity`, and `architecture`, `recipe` and `data` of `encoder.json`."""
    products: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Product (`archive/shard=0003`) → its record: `path`, `fingerprint`, `content_hash`, `facts`."""
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Entries of `dvc.lock`: stage → `cmd`, `deps`, `outs`. Empty: its data was never committed."""
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """MD5 of a folder (`….dir`) → file in it → MD5."""
    schema: int = _SCHEMA

    @property
    def outs(self) -> dict[str, dict[str, Any]]:
        """Path relative to the home → entry of `dvc.lock` (`md5`, `size`, …), of all data."""
        return {out["path"]: out for stage in self.stages.values() for out in stage.get("outs", [])}

    @property
    def objects(self) -> set[str]:
        """MD5 of everything that DVC must keep for it."""
        named = {out["md5"] for out in self.outs.values()}
        return named | {md5 for folder in named & self.files.keys() for md5 in self.files[folder].values()}

    @property
    def parent(self) -> Mapping[str, str] | None:
        """`uri` and `identity` of the warm-start parent; None: trained from scratch."""
        return (self.encoder.get("data") or {}).get("parent")


def collect(settings: Settings, encoder_dir: Path, identity: str) -> Lineage:
    """The record of the encoder in a folder, from the present workspace.

    Raises:
        UserError: the pack or parent in the workspace is not the one that the encoder was trained on or started from, or DVC has
            committed other bytes than were made.
    """
    description = read_object(encoder_dir / "encoder.json", "train or import the encoder again")
    stages, products = stages_of(settings), _records(settings.paths.records)
    made_of, pack = (description.get("data") or {}).get("pack"), products.get("pack", {}).get("content_hash")
    if made_of is not None and made_of != pack:
        raise UserError(
            f"encoder: trained on pack {made_of}, but the workspace holds {pack or 'none'}, so its lineage is unknown; "
            "materialize `encoder` again, or restore its data"
        )
    began, parent = (description.get("data") or {}).get("parent"), products.get("parent", {}).get("facts", {})
    if began is not None and began["uri"] != parent.get("uri"):
        raise UserError(
            f"encoder: training started from {began['uri']}, but the workspace's `parent` is {parent.get('uri') or 'none'}; "
            "materialize `encoder` again"
        )
    _check_chain(stages)
    for stage in ("locations", "scenes", "pack"):
        made = products.get(stage, {}).get("content_hash")
        if (outs := stages.get(stage, {}).get("outs")) and made not in [out.get("md5") for out in outs]:
            raise UserError(
                f"{stage}: DVC has committed other bytes than were made ({made}), so the lineage is unknown; make `{stage}` again"
            )
    return Lineage(
        profile=settings.profile,
        vintage=settings.vintage,
        code=code_version(),
        package=caco_assets.__version__,
        recipes=stage_versions(),
        environment=environment(),
        settings=_settings(settings),
        encoder={"identity": identity, **{key: description.get(key) for key in ("architecture", "recipe", "data")}},
        products=products,
        stages=stages,
        files=listings(settings.home, [out["md5"] for stage in stages.values() for out in stage.get("outs", [])]),
    )


def _check_chain(stages: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that each stage was made from the present output of the stages before it."""
    now = {out["path"]: out.get("md5") for entry in stages.values() for out in entry.get("outs", [])}
    for stage, entry in stages.items():
        for dep in entry.get("deps", []):
            if now.get(dep["path"], dep.get("md5")) != dep.get("md5"):
                raise UserError(
                    f"{stage}: was made before {dep['path']} changed, so the lineage is unknown; run the stages from "
                    f"`{stage}` on again"
                )


def store(tracking: Tracking, run_id: str, lineage: Lineage) -> str:
    """Log the record to a run; returns its artifact path, the value of the tag `LINEAGE`."""
    text = json.dumps(asdict(lineage), indent=1, sort_keys=True) + "\n"
    path = f"lineage/{hashlib.sha256(text.encode()).hexdigest()}.json"
    tracking.client.log_text(run_id, text, path)
    return path


def read(tracking: Tracking, version: ModelVersion) -> Lineage:
    """The record of a version; without one, what its tags tell.

    Raises:
        UserError: the record cannot be fetched, or is not the one that was stored.
    """
    tags = version.tags
    if LINEAGE not in tags:
        return _of_tags(tags)
    # records never change: those already read are cached beside the locks
    kept = tracking.state / tags[LINEAGE]
    if not kept.exists():
        with tempfile.TemporaryDirectory() as scratch:
            fetched = tracking.client.download_artifacts(str(version.run_id), tags[LINEAGE], scratch)
            write_atomic(kept, Path(fetched).read_bytes())
    data = kept.read_bytes()
    if hashlib.sha256(data).hexdigest() != kept.stem:
        kept.unlink()
        raise UserError(
            f"models:/{version.name}/{version.version}: its lineage record {tags[LINEAGE]} in run {version.run_id} is damaged; "
            "restore that artifact of the tracking server from a backup"
        )
    try:
        return Lineage(**parse_json(data, str(kept)))
    except TypeError as error:
        raise UserError(
            f"models:/{version.name}/{version.version}: its lineage record is of another version of caco_assets "
            f"({one_line(error, 200)}); update the package"
        ) from error


def tags_of(lineage: Lineage) -> dict[str, str]:
    """Tags that make the main facts of the record searchable in MLflow."""
    named = {f"environment.{name}": value for name, value in lineage.environment.items()}
    return named | ({PARENT: lineage.parent["uri"]} if lineage.parent else {})


def _of_tags(tags: Mapping[str, str]) -> Lineage:
    """For a version that was registered without a record."""
    data = {name.removeprefix(DATA): md5 for name, md5 in tags.items() if name.startswith(DATA)}
    products = {name: {"content_hash": md5} for name, md5 in data.items()}
    recipe = json.loads(tags["recipe"]) if "recipe" in tags else None
    encoder = {"identity": tags.get(IDENTITY), "recipe": recipe}
    return Lineage(
        tags.get("profile", "?"), tags.get("vintage", "?"), tags.get("code_version", "?"), encoder=encoder, products=products
    )


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of all products, without what serves only to check the files on this disk."""
    records = {path.relative_to(folder).with_suffix("").as_posix(): read_record(path) for path in folder.rglob("*.json")}
    local = ("signature", "files")
    return {name: {key: value for key, value in record.items() if key not in local} for name, record in sorted(records.items())}


def _settings(settings: Settings) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return redacted(value) if isinstance(value, str) else value

    return plain(settings.model_dump(mode="json", exclude={"home": True, "registry": {"tracking_uri", "notify"}}))
