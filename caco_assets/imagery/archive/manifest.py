"""The manifest of an archive in an object store, which makes it readable without the workspace that made it.

`ROOT/PROFILE/2026-11.json` names each shard's tar and index (`shard=0007/MD5.tar`, `shard=0007/MD5.parquet`) and the places. It is
written last, in one request, when all shards are stored. It is the only object that is ever overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from caco_assets.core import object_store
from caco_assets.core.products import Product, file_md5
from caco_assets.imagery.archive.shard import INDEX, QUARANTINE, shard_name
from caco_assets.imagery.archive.tar_store import pointer
from caco_assets.settings import Settings

FORMAT = "caco-archive-1"
_AT_ONCE = 16
"""Concurrent requests."""


def address_of(settings: Settings) -> str:
    """Address of this vintage's manifest; `imagery.archive` must be set."""
    return object_store.join(str(settings.imagery.archive), settings.profile, f"{settings.vintage}.json")


def stored_at(settings: Settings, shard: int) -> str | None:
    """Address of a shard's folder in the object store that `imagery.archive` names; None: shards are in the workspace."""
    root = settings.imagery.archive
    return None if root is None else object_store.join(root, settings.profile, shard_name(shard))


def publish(settings: Settings, shards: Sequence[Product]) -> str | None:
    """Store indexes, refusals and the manifest of an archive whose tars are stored; returns the manifest's address.

    Returns None if a tar is in the workspace (made before `imagery.archive` was set): such an archive is not in the store.

    Raises:
        UserError: the store rejects it.
    """
    root = object_store.join(str(settings.imagery.archive), settings.profile)
    tars = {shard.path.name: pointer(shard.path) for shard in shards}
    listed = {name: {"chips.tar": far.address} for name, far in tars.items() if far is not None}
    if len(listed) < len(tars):
        return None

    def put(file: Path, folder: str) -> str:
        address = object_store.join(root, *([folder] if folder else []), f"{file_md5(file)}.parquet")
        if object_store.size(address) != file.stat().st_size:
            object_store.write(address, file.read_bytes())
        return address

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        coming = {
            (shard.path.name, name): pool.submit(put, shard.path / name, shard.path.name)
            for shard in shards
            for name in (INDEX, QUARANTINE)
        }
        for (shard, name), address in coming.items():
            listed[shard][name] = address.result()
    places = put(settings.paths.locations, "")
    content = {"format": FORMAT, "vintage": settings.vintage, "locations": places, "shards": dict(sorted(listed.items()))}
    object_store.write(address_of(settings), json.dumps(content, indent=1).encode() + b"\n")
    return address_of(settings)
