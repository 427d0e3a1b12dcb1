"""DVC: which bytes a data product is, kept in a cache and pushed to a remote, so that any old version can come back."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from caco_assets.errors import UserError
from caco_assets.home import ensure_home, write_stage_settings
from caco_assets.settings import Settings

# Another process may hold DVC's lock for the length of one commit; longer than this means that something hangs.
LOCK_WAIT_S = 60.0


class DataVersions(dg.ConfigurableResource):
    """Commits stages of the home's `dvc.yaml` and pushes them to the remote."""

    push: bool = True
    """Push after each commit; a failed push fails the asset."""

    def commit(self, settings: Settings, stage: str) -> dict[str, str]:
        """Record what lies in the workspace as the outputs of `stage`: cache, `dvc.lock`, remote.

        Returns:
            Output path relative to the home → md5.

        Raises:
            UserError: the remote cannot be reached, or DVC's lock is held for too long.
        """
        from dvc.exceptions import DvcException
        from dvc.lock import LockError
        from dvc.repo import Repo

        # "Updating lock file" for every stage of every run is noise
        logging.getLogger("dvc").setLevel(logging.WARNING)
        ensure_home(settings)
        write_stage_settings(settings)
        # DVC takes a bare stage name relative to the working directory, which need not be the home folder
        pipeline = settings.home / "dvc.yaml"
        target, deadline = f"{stage}@{settings.profile}", time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                with Repo(str(settings.home)) as repo:
                    repo.commit(f"{pipeline}:settings@{settings.profile}", force=True)
                    repo.commit(f"{pipeline}:{target}", force=True)
                    if self.push:
                        repo.push([f"{pipeline}:{target}"])
                return locked(settings.home, target)
            except LockError as error:
                if time.monotonic() > deadline:
                    raise UserError(f"dvc commit {target}: the repository is locked by another process ({error})") from error
                time.sleep(0.5)
            except (DvcException, OSError) as error:
                remedy = "check the remote with `dvc remote list` and run the same command again; nothing is lost"
                raise UserError(f"dvc commit {target}: {' '.join(str(error).split())}; {remedy}") from error


def locked(home: Path, target: str) -> dict[str, str]:
    """Outputs of a stage (`archive@embedded`) as `dvc.lock` names them: path → md5."""
    stages = _lock(home).get("stages", {})
    return {out["path"]: out["md5"] for out in stages.get(target, {}).get("outs", [])}


def data_versions(settings: Settings) -> dict[str, str]:
    """md5 of every committed data product of the profile, by product name (`locations`, `scenes`, `archive`, `pack`, …)."""
    versions: dict[str, str] = {}
    for stage in ("locations", "scenes", "archive", "pack"):
        for path, md5 in locked(settings.home, f"{stage}@{settings.profile}").items():
            versions[Path(path).stem] = md5
    return versions


def _lock(home: Path) -> dict[str, Any]:
    path = home / "dvc.lock"
    return yaml.safe_load(path.read_text()) if path.exists() else {}
