"""Commits data products to DVC's cache and pushes them to a remote, so that any old version can be restored."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from caco_assets.core.errors import UserError, storage_error
from caco_assets.core.products import folder_hash, read_record, recorded
from caco_assets.resources.dvc.home import ensure_home
from caco_assets.resources.dvc.object_db import listings
from caco_assets.resources.dvc.params import write_stage_settings
from caco_assets.resources.dvc.repo import LOCK_WAIT_S, UnavailableError, data_versions, locked, remember, repository
from caco_assets.settings import SecoLayoutSource, Settings

logger = logging.getLogger(__name__)
_TRY_AGAIN_S = 0.5

__all__ = ["DataVersions", "commit_stale", "data_versions"]

# Stage of `dvc.yaml` → a product whose record tells whether the stage has been made again since it was committed.
_TELLS = {"locations": "locations", "scenes": "scenes", "archive": "quarantine", "pack": "pack", "probe_set": "probe_set"}


class DataVersions(dg.ConfigurableResource):
    """Commits stages of the home's `dvc.yaml` and pushes them to the remote."""

    push: bool = True
    """Push after each commit; if the push fails, the asset fails."""
    retries: int = 3
    """Retries of an asset whose push failed; a retry reuses finished products."""
    retry_s: float = 30.0
    """Seconds before a retry: a store that is down seldom recovers sooner."""
    _in_a_run: bool = PrivateAttr(default=False)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002 - Dagster passes it
        """Called by Dagster when the resource serves a run, which can be retried."""
        self._in_a_run = True

    def commit(self, settings: Settings, stage: str) -> dict[str, str]:
        """Record the workspace's outputs of `stage` in the cache, `dvc.lock` and the remote.

        Returns:
            Output path relative to the home → md5.

        Raises:
            UserError: the remote cannot be reached, or DVC's lock is held for too long; in a Dagster run, `RetryRequested` instead.
        """
        try:
            return self._commit(settings, stage)
        except UnavailableError as error:
            if self._in_a_run:
                raise dg.RetryRequested(self.retries, self.retry_s) from error
            raise

    def _commit(self, settings: Settings, stage: str) -> dict[str, str]:
        from dvc.lock import LockError

        deadline, logged = time.monotonic() + LOCK_WAIT_S, False
        while True:
            try:
                return self._commit_once(settings, stage)
            except LockError as error:
                # `dvc repro` lets go of the repository while a stage runs, but not of the stage's files
                text = f"dvc commit {stage}@{settings.profile}: another DVC command works on these files"
                if time.monotonic() > deadline:
                    raise UnavailableError(f"{text}; run the same again when it is done ({_blocker(error)})") from error
                if not logged:
                    logger.info(f"{text}; waiting up to {LOCK_WAIT_S:.0f} s ({_blocker(error)})")
                    logged = True
            time.sleep(_TRY_AGAIN_S)

    def _commit_once(self, settings: Settings, stage: str) -> dict[str, str]:
        from dvc.exceptions import DvcException
        from dvc.lock import LockError

        ensure_home(settings)
        write_stage_settings(settings)
        # DVC resolves a bare stage name relative to the working directory, which may not be the home folder
        pipeline = settings.home / "dvc.yaml"
        target, what = f"{pipeline}:{stage}@{settings.profile}", f"dvc commit {stage}@{settings.profile}"
        with repository(settings.home, what) as repo:
            try:
                repo.commit(f"{pipeline}:settings@{settings.profile}", force=True)
                repo.commit(target, force=True)
            except LockError:
                raise
            except (DvcException, OSError) as error:
                plain = storage_error(error, settings.home)
                raise plain or UserError(f"{what}: {_one_line(error)}; `dvc status` says more") from error
            remember(settings, stage)
            if self.push:
                _push(repo, target, what)
        return locked(settings, stage)


def commit_stale(settings: Settings) -> None:
    """Commit products made since the last commit, by commands, which do not commit themselves.

    Raises:
        UserError: see `DataVersions.commit`.
    """
    for stage, product in _TELLS.items():
        if not (settings.paths.records / f"{product}.json").exists():
            continue
        if stage == "archive" and isinstance(settings.imagery.source, SecoLayoutSource):
            # an imported archive was made from no plan of scenes, which its stage depends on; its pack is versioned
            continue
        made, known = recorded(settings.paths.records, product), locked(settings, stage)
        if not made.path.exists():
            continue
        if made.content_hash in known.values() and (stage != "archive" or _archive_is(settings, known)):
            continue
        logger.info(f"{stage}: committing this version to DVC")
        DataVersions().commit(settings, stage)


def _archive_is(settings: Settings, known: Mapping[str, str]) -> bool:
    """Whether the archive in the lock consists of the recorded shards."""
    (folder,) = [md5 for md5 in known.values() if md5.endswith(".dir")]
    files = listings(settings.home, [folder]).get(folder)
    if files is None:
        return False
    shards = {path.stem: read_record(path) for path in (settings.paths.records / "archive").glob("shard=*.json")}
    parted: dict[str, dict[str, str]] = {}
    for file, md5 in files.items():
        shard, _, name = file.partition("/")
        parted.setdefault(shard, {})[name] = md5
    return {name: folder_hash(part) for name, part in parted.items()} == {
        name: record["content_hash"] for name, record in shards.items()
    }


def _push(repo: Any, target: str, what: str) -> None:
    try:
        repo.push([target])
    # each store's client raises its own exception types
    except Exception as error:
        # waiting does not free a full disk
        if (plain := storage_error(error)) is not None:
            raise plain from error
        remedy = "check the remote with `dvc remote list` and run the same command again; nothing is lost"
        raise UnavailableError(f"{what}: not pushed: {_one_line(error)}; {remedy}") from error


def _blocker(error: BaseException) -> str:
    """The process that holds the files, from DVC's advice to remove its lock, which must not be followed while that runs."""
    found = re.search(r"\(PID \d+\): [^\n]+", str(error))
    return found[0] if found else _one_line(error)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
