"""Copies a team's object store to a folder and back, as a backup that can be restored to any S3 store.

DVC's objects never change (they are named by content hash) and MLflow writes its objects once, so an object of the same size is
unchanged.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caco_assets.services.migrate import make_buckets, store
from caco_assets.settings.deployment import STORE, deployment, read_secrets

logger = logging.getLogger(__name__)

_URIS = ("CACO_MLFLOW_ARTIFACTS", "CACO_VERSIONS__REMOTE")
_KEPT = (*_URIS, "CACO_IMAGERY__ARCHIVE")
"""Variables that name buckets; the last one is optional."""


def save(folder: Path) -> None:
    """Copy the buckets of artifacts, data versions and archive into `folder/BUCKET/KEY`.

    Raises:
        UserError: a variable is missing.
    """
    client, copied, kept = _opened(), 0, 0
    for bucket, key, size in _objects(client):
        target = folder / bucket / key
        if target.exists() and target.stat().st_size == size:
            kept += 1
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        client.download_file(bucket, key, str(partial))
        partial.replace(target)
        copied += 1
    logger.info(f"objects: {copied} copied to {folder}, {kept} were there")


def load(folder: Path) -> None:
    """Copy `folder/BUCKET/KEY` into the store and create missing buckets.

    Raises:
        UserError: a variable is missing.
    """
    client, copied, kept = _opened(), 0, 0
    make_buckets()
    there = {(bucket, key): size for bucket, key, size in _objects(client)}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        bucket, _, key = path.relative_to(folder).as_posix().partition("/")
        if there.get((bucket, key)) == path.stat().st_size:
            kept += 1
            continue
        client.upload_file(str(path), bucket, key)
        copied += 1
    logger.info(f"objects: {copied} copied from {folder}, {kept} were there")


def _opened() -> Any:
    read_secrets()
    deployment().require((*STORE, *_URIS), os.environ)
    return store()


def _objects(client: Any) -> Iterator[tuple[str, str, int]]:
    """Bucket, key and size in bytes of every object."""
    kept = [uri for name in _KEPT if (uri := os.environ.get(name, "")).startswith("s3://")]
    for bucket in sorted({uri.removeprefix("s3://").partition("/")[0] for uri in kept}):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for item in page.get("Contents", []):
                yield bucket, item["Key"], item["Size"]
