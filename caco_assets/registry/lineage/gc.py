"""Finds unreferenced data of a workspace: old data that no version was made from, and leftovers of abandoned work."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from caco_assets.core.file_lock import is_locked
from caco_assets.core.products import read_record
from caco_assets.registry.lineage.usage import all_lineages
from caco_assets.resources.dvc.gc import Store, garbage
from caco_assets.resources.dvc.home import ensure_home
from caco_assets.resources.dvc.repo import history
from caco_assets.resources.mlflow.client import Tracking, open_tracking
from caco_assets.settings import Settings

OLD_DAYS = 14.0
_DAY_S = 86_400.0
# see `products.partial_of`
_PARTIAL = re.compile(r"\..+\.partial-[0-9a-f]{12}")


@dataclass(frozen=True)
class Leftover:
    """A file or folder beside the products that has not been written for long."""

    path: Path
    bytes: int


@dataclass(frozen=True)
class Garbage:
    """Everything that can be deleted."""

    stores: tuple[Store, ...]
    leftovers: tuple[Leftover, ...]

    @property
    def bytes(self) -> int:
        """Total size; objects in both cache and remote count twice."""
        return sum(store.bytes for store in self.stores) + sum(each.bytes for each in self.leftovers)

    def text(self) -> str:
        """For people."""
        lines = []
        for store in self.stores:
            size = tqdm.format_sizeof(store.bytes, "B")
            lines.append(f"{store.kind} {store.path}: {len(store.waste)} objects, {size}; {store.kept} are kept")
            for product, (count, volume) in store.by_product().items():
                lines.append(f"  {product}: {count} objects, {tqdm.format_sizeof(volume, 'B')}")
        lines += [f"{each.path}: {tqdm.format_sizeof(each.bytes, 'B')}, not written for long" for each in self.leftovers]
        return "\n".join(lines)

    def delete(self) -> None:
        """Delete it; only inside the block of `find_garbage`."""
        for store in self.stores:
            store.delete()
        for each in self.leftovers:
            if each.path.is_dir():
                shutil.rmtree(each.path)
            else:
                each.path.unlink(missing_ok=True)


@contextmanager
def find_garbage(
    settings: Settings,
    *,
    remote: bool = False,
    older_than_days: float = OLD_DAYS,
    tracking: Tracking | None = None,
) -> Iterator[Garbage]:
    """Find what can be deleted.

    Kept are the data of every registered version of every model on the tracking server, of all profiles as they are now, and of
    every branch and tag of git.

    Args:
        settings: a profile of the home; the other profiles of the home are respected.
        remote: search DVC's remote too; no other home may use it.
        older_than_days: partial products and caches not written for so long can be deleted too.
        tracking: default: opened here.

    Raises:
        UserError: the registry, a version's record or a branch of git cannot be read, so what is needed is unknown.
    """
    ensure_home(settings)
    tracking = tracking or open_tracking(settings)
    needed: set[str] = set()
    for _, lineage in all_lineages(tracking):
        needed |= lineage.objects | {str(product["content_hash"]) for product in lineage.products.values()}
    for record in settings.paths.workspace.glob("*/records/**/*.json"):
        needed.add(read_record(record)["content_hash"])
    named = {entry["md5"]: f"{Path(entry['path']).stem} of {entry['profile']}" for entry in history(settings)}
    leftovers = tuple(_leftovers(settings.paths.workspace, time.time() - older_than_days * _DAY_S))
    with garbage(settings.home, needed, named, remote=remote) as stores:
        yield Garbage(tuple(stores), leftovers)


def _leftovers(workspace: Path, before: float) -> Iterator[Leftover]:
    """Partial products and cached pixels and features of all profiles, last written before `before` and not locked."""
    for profile in sorted(path.parent for path in workspace.glob("*/records")):
        groups: dict[Path, list[Path]] = {}
        for folder in (profile, profile / "data", profile / "data" / "archive"):
            for path in sorted(folder.glob(".*.partial-*")):
                if found := _PARTIAL.match(path.name):
                    # a partial product and the files beside it belong together
                    groups.setdefault(path.with_name(found[0]), []).append(path)
        # no other cache: tables of per-item predictions, which scores refer to, are not recreated automatically
        cached = [path for kind in ("features", "pixels") for path in sorted((profile / "cache" / kind).glob("*"))]
        groups |= {path: [path] for path in cached}
        for work, paths in groups.items():
            sizes = {file: file.stat() for path in paths for file in (path, *path.rglob("*")) if file.exists()}
            if max((each.st_mtime for each in sizes.values()), default=0.0) < before and not is_locked(
                work.with_name(f"{work.name}.lock")
            ):
                yield from (Leftover(path, sum(_size(file) for file in (path, *path.rglob("*")))) for path in paths)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
