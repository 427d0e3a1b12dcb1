"""Restores the data and settings of a version in a separate home folder, where the same training can be repeated."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.core.products import content_hash, fingerprint
from caco_assets.core.stage_versions import stage_version
from caco_assets.registry.lineage.record import Lineage, read
from caco_assets.registry.package.mlflow_model import download, files_of
from caco_assets.registry.parent import DESCRIPTION
from caco_assets.registry.versions import find
from caco_assets.resources.dvc.home import ensure_home
from caco_assets.resources.dvc.object_db import bring, checkout
from caco_assets.resources.dvc.params import write_stage_settings
from caco_assets.resources.mlflow.client import Tracking, open_tracking
from caco_assets.settings import Settings, load_settings
from caco_assets.settings.names import why_not_profile
from caco_assets.settings.renamed import current_names

logger = logging.getLogger(__name__)

NOTE = "restored.json"
"""File in the home: the version and its record."""
# products that enter fingerprints of others, but have no files
_WITHOUT_FILES = ("catalog",)
_NAME = re.compile(r"\w[\w.-]*")
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


@dataclass(frozen=True)
class Restored:
    """A home with the data of a version."""

    home: Path
    profile: Path
    """The profile to run with."""
    differs: tuple[str, ...]
    """Why this code would not reproduce the weights there; empty: it would, on the same machine."""

    def text(self) -> str:
        """For people: the next command."""
        lines = [
            f"restored in {self.home}; train again with:",
            f"  cd {self.home} && caco pretrain --profile {self.profile.name}",
        ]
        if self.differs:
            return "\n".join([*lines, "this code would not give the same weights:", *(f"  {why}" for why in self.differs)])
        return "\n".join([*lines, "on the machine that trained it, this gives the same weights"])


def restore(settings: Settings, uri: str, out: Path, *, tracking: Tracking | None = None) -> Restored:
    """Restore exactly the data and settings that made a version. The present workspace is only read.

    Args:
        settings: the profile with the registry, the cache and the remote.
        uri: `models:/name/7` or `models:/name@champion`.
        out: folder of the new home: a new folder, or that of an interrupted call for the same version.
        tracking: default: opened here.

    Raises:
        UserError: no such version, it was registered without its data, its record names files outside the home, `out` holds
            something else, or data is lost.
    """
    tracking = tracking or open_tracking(settings)
    version = find(tracking, uri)
    name, lineage, home = f"models:/{version.name}/{version.version}", read(tracking, version), out.resolve()
    if not lineage.stages:
        raise UserError(f"{name}: registered without a record of its data, so it cannot be restored; see `caco lineage {name}`")
    _check_names(name, home, lineage)
    _claim(home, name, lineage)
    profile = home / f"{lineage.profile}.yaml"
    made_with = current_names(lineage.settings, warn=False)
    write_atomic(profile, yaml.safe_dump({key: value for key, value in made_with.items() if key != "profile"}))
    there = load_settings(str(profile), home=home)
    ensure_home(there)
    _without_git(home)
    stages = {f"{stage}@{lineage.profile}": dict(entry) for stage, entry in lineage.stages.items()}
    write_atomic(home / "dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))
    logger.info(f"restore: {name} consists of {len(lineage.objects)} objects")
    bring(settings.home, home, lineage.objects)
    checkout(home, stages)
    if "parent" in lineage.products:
        _bring_parent(there, tracking, lineage)
    _check_bytes(home, lineage)
    _write_records(there, lineage)
    write_stage_settings(there)
    return Restored(home, profile, tuple(_differences(there, lineage)))


def _check_names(uri: str, home: Path, lineage: Lineage) -> None:
    """Refuse paths outside the new home: the right to write to the registry must not grant writing elsewhere."""
    records = home / "workspace" / lineage.profile / "records"
    bad = [text for text in lineage.stages if not _NAME.fullmatch(text)]
    bad += [lineage.profile] if why_not_profile(lineage.profile) else []
    bad += [text for text in lineage.objects if not _MD5.fullmatch(text)]
    bad += [path for path in lineage.outs if not _stays(home, home / path)]
    bad += [file for files in lineage.files.values() for file in files if not _stays(home, home / file)]
    for name, record in lineage.products.items():
        bad += [] if _stays(records, records / f"{name}.json") else [name]
        bad += [] if _stays(home, records / record["path"]) else [record["path"]]
    if bad:
        raise UserError(f"{uri}: its record names {bad[0]!r}, which lies outside the home; nothing was written, do not trust it")


def _stays(folder: Path, path: Path) -> bool:
    return Path(os.path.normpath(path)).is_relative_to(folder)


def _claim(home: Path, name: str, lineage: Lineage) -> None:
    note = home / NOTE
    if note.exists():
        if json.loads(note.read_text())["uri"] != name:
            raise UserError(f"{home}: holds {json.loads(note.read_text())['uri']}; name another folder with --out")
    elif home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise UserError(f"{home}: exists and is not empty; name a new folder with --out")
    write_atomic(note, json.dumps({"uri": name, "lineage": asdict(lineage)}, indent=1) + "\n")


def _without_git(home: Path) -> None:
    """Keep DVC out of a Git repository that contains the home, and may ignore it."""
    config = home / ".dvc" / "config"
    if "no_scm" not in config.read_text():
        write_atomic(config, config.read_text().replace("[core]\n", "[core]\n    no_scm = true\n"))


def _bring_parent(there: Settings, tracking: Tracking, lineage: Lineage) -> None:
    """Restore the product `parent`: the warm-start parent, or the note that there was none."""
    named, record = dict(lineage.parent or {"uri": None, "identity": None}), lineage.products["parent"]
    folder = _path_of(there, record)
    folder.mkdir(parents=True, exist_ok=True)
    if named["uri"] is not None:
        with tempfile.TemporaryDirectory() as scratch:
            source = files_of(download(tracking, find(tracking, named["uri"]), Path(scratch)), named["uri"])
            for name in ("encoder.safetensors", "encoder.json"):
                shutil.copyfile(source / name, folder / name)
    (folder / DESCRIPTION).write_text(json.dumps(named, sort_keys=True) + "\n")
    if (found := content_hash(folder)) != record["content_hash"]:
        raise UserError(f"{named['uri']}: its files are {found}, but the training started from {record['content_hash']}")


def _check_bytes(home: Path, lineage: Lineage) -> None:
    for path, out in lineage.outs.items():
        found = content_hash(home / path) if (home / path).exists() else "nothing"
        if found != out["md5"]:
            raise UserError(f"{home / path}: is {found}, but the version needs {out['md5']}; check the cache with `dvc status`")


def _write_records(there: Settings, lineage: Lineage) -> None:
    """Record the restored products as finished; without a signature, the first use of each compares its bytes."""
    for name, record in lineage.products.items():
        if name in _WITHOUT_FILES or _path_of(there, record).exists():
            write_atomic(there.paths.records / f"{name}.json", json.dumps({**record, "signature": ""}, indent=1) + "\n")


def _path_of(there: Settings, record: Any) -> Path:
    return (there.paths.records / record["path"]).resolve()


def _differences(there: Settings, lineage: Lineage) -> list[str]:
    """Why this code would train another encoder: the fingerprint decides, the rest explains."""
    from caco_assets.pretraining.on_record import encoder_inputs_on_record
    from caco_assets.pretraining.stage import encoder_inputs

    made = lineage.products.get("encoder", {}).get("fingerprint")
    if fingerprint(stage_version("encoder"), encoder_inputs(there, encoder_inputs_on_record(there))) == made:
        return []
    why = []
    if (was := lineage.recipes.get("encoder")) != stage_version("encoder"):
        why.append(
            f"stage version of the encoder: {was} then, {stage_version('encoder')} now; use the earlier code: {lineage.code}"
        )
    now = json.loads(there.model_dump_json(exclude={"home": True, "registry": {"tracking_uri"}}))
    for section, values in now.items():
        then = lineage.settings.get(section)
        if isinstance(values, dict) and isinstance(then, dict):
            changed = [key for key, value in values.items() if then.get(key) != value]
            why += [f"{section}.{key}: {then.get(key)} then, {values[key]} now" for key in changed]
        elif then != values:
            why.append(f"{section}: {then} then, {values} now")
    return why or [f"the code that decides the encoder has changed; use the earlier code: {lineage.code}"]
