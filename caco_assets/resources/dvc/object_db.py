"""Access to DVC's object store: lists folders and restores old versions into a separate home."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caco_assets.core.errors import UserError, one_line, storage_error
from caco_assets.resources.dvc.repo import UnavailableError, repository

if TYPE_CHECKING:
    from dvc.repo import Repo

logger = logging.getLogger(__name__)

_FOLDER = ".dir"


def listings(home: Path, hashes: Iterable[str]) -> dict[str, dict[str, str]]:
    """Contents of the folders among `hashes`: md5 of the folder → file in it → md5; folders missing from the cache are left out."""
    folders = sorted({each for each in hashes if each.endswith(_FOLDER)})
    if not folders:
        return {}
    with repository(home, "dvc") as repo:
        return {folder: found for folder in folders if (found := listing(repo.cache.local, folder)) is not None}


def listing(store: Any, folder: str) -> dict[str, str] | None:
    """File → md5 of one folder in an object store; None if the store lacks it."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    try:
        entries = Tree.load(store, HashInfo("md5", folder)).as_list()
    except FileNotFoundError:
        return None
    return {entry["relpath"]: entry["md5"] for entry in entries}


def bring(source: Path, target: Path, hashes: Iterable[str]) -> None:
    """Put objects into the cache of the home `target`, from the cache of `source` or else from its remote.

    On the same file system they are linked, without copying.

    Raises:
        UserError: some objects are in neither.
        UnavailableError: the remote cannot be reached.
    """
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.transfer import transfer

    wanted = set(hashes)
    with repository(source, "restore") as repo, repository(target, "restore") as other:
        cache = repo.cache.local
        away = sorted(each for each in wanted if not cache.exists(each))
        if away:
            logger.info(f"restore: {len(away)} of {len(wanted)} objects are not in the cache; fetching them from the remote")
            _fetch(repo, away)
        if lost := [each for each in wanted if not cache.exists(each)]:
            raise UserError(
                f"{len(lost)} of {len(wanted)} objects are neither in the cache nor in the remote, the first {lost[0]}; "
                "find the remote that has them (`versions.remote`), or make the data again"
            )
        linked = os.stat(cache.path).st_dev == os.stat(target).st_dev  # noqa: PTH116 - DVC's path is text
        transfer(cache, other.cache.local, {HashInfo("md5", each) for each in wanted}, hardlink=linked)


def checkout(home: Path, stages: Iterable[str]) -> None:
    """Write the outputs that `dvc.lock` names for these stages (`archive@tiny`) into the workspace.

    Raises:
        UserError: DVC refuses.
    """
    from dvc.exceptions import DvcException

    pipeline = home / "dvc.yaml"
    with repository(home, "dvc checkout") as repo:
        try:
            repo.checkout([f"{pipeline}:{stage}" for stage in stages], force=True)
        except (DvcException, OSError) as error:
            raise storage_error(error, home) or UserError(f"dvc checkout in {home}: {one_line(error)}") from error


def _fetch(repo: Repo, hashes: Iterable[str]) -> None:
    from dvc_data.hashfile.hash_info import HashInfo

    try:
        repo.cloud.pull([HashInfo("md5", each) for each in hashes])
    # each store's client raises its own exception types
    except Exception as error:
        raise storage_error(error) or UnavailableError(f"restore: the remote cannot be read: {one_line(error)}") from error
