"""Finds and deletes unreferenced objects in DVC's cache and remote, under DVC's lock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caco_assets.core.errors import UserError, one_line
from caco_assets.resources.dvc.object_db import listing
from caco_assets.resources.dvc.repo import UnavailableError, repository

if TYPE_CHECKING:
    from dvc.repo import Repo

logger = logging.getLogger(__name__)

CACHE, REMOTE = "cache", "remote"
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Store:
    """One object store and its unreferenced objects."""

    kind: str
    """`cache` or `remote`."""
    path: str
    kept: int
    waste: Mapping[str, int]
    """md5 → bytes."""
    products: Mapping[str, str]
    """md5 of an unreferenced object → the product it was part of."""
    delete: Callable[[], None]
    """Removes the unreferenced objects; valid only inside the block of `garbage`."""

    @property
    def bytes(self) -> int:
        """Bytes that deletion would free."""
        return sum(self.waste.values())

    def by_product(self) -> dict[str, tuple[int, int]]:
        """Product → (objects, bytes)."""
        total: dict[str, tuple[int, int]] = {}
        for md5, size in self.waste.items():
            count, volume = total.get(self.products[md5], (0, 0))
            total[self.products[md5]] = (count + 1, volume + size)
        return dict(sorted(total.items()))


@contextmanager
def garbage(home: Path, needed: Iterable[str], named: Mapping[str, str], *, remote: bool) -> Iterator[list[Store]]:
    """Find unreferenced objects in the cache and optionally the remote; DVC's lock is held while the block runs.

    Args:
        home: the home folder.
        needed: md5 of files and folders to keep besides those that `dvc.lock` names here and in every git branch and tag; for
            folders, their files too.
        named: md5 → product, for display.
        remote: search the remote too. It must serve only this home.

    Raises:
        UserError: the DVC files of a branch or tag cannot be read, or the cache lies outside the home.
        UnavailableError: the remote cannot be reached, or DVC's lock is held.
    """
    with repository(home, "caco gc") as repo:
        cache = repo.cache.local
        if not Path(cache.path).resolve().is_relative_to(home.resolve()):
            raise UserError(f"{cache.path}: DVC's cache lies outside {home} and may serve other homes too; use `dvc gc --projects`")
        locked = _named_by_git(repo)
        keep = {*needed, *locked}
        stores = [(CACHE, cache)]
        if remote:
            stores.append((REMOTE, _remote_store(repo)))
        for folder in sorted(each for each in keep if each.endswith(".dir")):
            files = next((found for _, store in stores if (found := listing(store, folder)) is not None), None)
            # hashes of products that are not stage outputs (a shard, an encoder) do not occur in a store
            if files is None and (folder in locked or folder in named):
                files = _listed_remotely(repo, folder)
                if files is None:
                    where = locked.get(folder, named.get(folder, ""))
                    logger.warning(f"gc: {folder} ({where}) is in neither cache nor remote, so it cannot be restored")
            keep.update((files or {}).values())
        try:
            yield [_look(kind, store, keep, named) for kind, store in stores]
        finally:
            # DVC caches an index of the remote
            repo.drop_data_index()


def _named_by_git(repo: Repo) -> dict[str, str]:
    """md5 of every file and folder that `dvc.lock` and `.dvc` files name here and in each branch and tag → where it is named."""
    from dvc.exceptions import DvcException
    from dvc.scm import NoSCM

    everywhere, where = not isinstance(repo.scm, NoSCM), "the workspace"
    named: dict[str, str] = {}
    try:
        for revision in repo.brancher(all_branches=everywhere, all_tags=everywhere):
            # DVC's word for uncommitted files is None or "workspace"
            where = f"the branch or tag {revision}" if revision not in (None, "workspace") else "the workspace"
            outs = [out for out in repo.index.outs if out.use_cache]
            named |= {md5: f"{out} of {where}" for out in outs if (md5 := out.hash_info.value if out.hash_info else None)}
    except (DvcException, OSError, ValueError) as error:
        raise UserError(
            f"caco gc: the DVC files of {where} cannot be read, so what they need is not known: {one_line(error, 200)}; nothing "
            "was deleted: repair those files there and commit them"
        ) from error
    return named


def _listed_remotely(repo: Repo, folder: str) -> dict[str, str] | None:
    """Contents of a folder according to the remote, if there is one."""
    return listing(_remote_store(repo), folder) if repo.config["core"].get("remote") else None


def _remote_store(repo: Repo) -> Any:
    try:
        store = repo.cloud.get_remote_odb(None, "gc")
        store.fs.exists(store.path)
    # each store's client raises its own exception types
    except Exception as error:
        raise UnavailableError(f"caco gc: the remote cannot be asked: {one_line(error, 200)}") from error
    return store


def _look(kind: str, store: Any, keep: set[str], named: Mapping[str, str]) -> Store:
    from dvc_data.hashfile.db import get_index

    present = set(store.all()) if store.fs.exists(store.path) else set()
    waste = sorted(present - keep)
    products = {}
    for md5 in waste:
        product = named.get(md5, _UNKNOWN)
        products.setdefault(md5, product)
        if md5.endswith(".dir"):
            for file in (listing(store, md5) or {}).values():
                products[file] = product

    def delete() -> None:
        # folders first: a folder that remains must list only existing files
        for paths in ([each for each in waste if each.endswith(".dir")], [each for each in waste if not each.endswith(".dir")]):
            if paths:
                store.fs.remove([store.oid_to_path(each) for each in paths])
        if kind == REMOTE:
            get_index(store).clear()

    sizes = {md5: store.fs.size(store.oid_to_path(md5)) for md5 in waste}
    return Store(kind, store.path, len(present) - len(waste), sizes, products, delete)
