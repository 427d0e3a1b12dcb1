"""Data products: written atomically, reused when nothing they depend on has changed, and named by the hash that DVC gives them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from caco_assets.errors import UserError

_BLOCK = 1 << 20
Facts = dict[str, Any]


@dataclass(frozen=True)
class Product:
    """One finished data product on disk: what an asset, a DVC stage and a command hand on instead of pixels."""

    name: str
    """The product's name: the same word as its Dagster asset and its DVC stage."""
    path: Path
    """The file or folder."""
    fingerprint: str
    """sha256 over everything it was made from: recipe version, settings, content hashes of its inputs."""
    content_hash: str
    """md5 as DVC computes it (`….dir` for a folder)."""
    facts: Facts = field(default_factory=dict)
    """Counts and figures for people, JSON-able."""
    reused: bool = False
    """True when nothing had changed and no work was done."""


def file_md5(path: Path) -> str:
    """md5 of a file's bytes, as DVC names a file."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """The hash that DVC gives `path`: md5 of a file, or of the sorted listing of a folder, with the suffix `.dir`."""
    if path.is_file():
        return file_md5(path)
    listing = [{"md5": file_md5(file), "relpath": file.relative_to(path).as_posix()} for file in path.rglob("*") if file.is_file()]
    listing.sort(key=lambda entry: tuple(entry["relpath"].split("/")))
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def fingerprint(recipe: str, inputs: Mapping[str, Any]) -> str:
    """sha256 of a recipe version and of everything that can change its result (JSON-able, order does not matter)."""
    text = json.dumps({"recipe": recipe, "inputs": inputs}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a small file so that a reader sees the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    scratch.write_bytes(data.encode() if isinstance(data, str) else data)
    with scratch.open("rb") as stream:
        os.fsync(stream.fileno())
    scratch.replace(path)


def produce(
    name: str,
    path: Path,
    *,
    records: Path,
    recipe: str,
    inputs: Mapping[str, Any],
    make: Callable[[Path], Facts],
) -> Product:
    """Make the product at `path`, or reuse it when its fingerprint and its content are those on record.

    Args:
        name: the product's name; may hold `/` (`archive/shard=0003`).
        path: where the finished file or folder stands.
        records: folder of the small JSON records, outside any tracked folder.
        recipe: version of the code that makes it (see `recipes.yaml`).
        inputs: everything else that decides its content.
        make: writes the product to the path it is given (a file, or a folder that it creates) and returns its facts. An
            interrupted `make` finds what it left there when it is called again with the same fingerprint, and may go on from it.

    Raises:
        UserError: the disk is full; what is finished is kept.
    """
    mark = fingerprint(recipe, inputs)
    record_file = records / f"{name}.json"
    if (known := _reusable(record_file, path, mark)) is not None:
        return known
    partial = path.with_name(f".{path.name}.partial-{mark[:12]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        facts = make(partial)
        _swap(partial, path)
        product = Product(name, path, mark, content_hash(path), facts)
        _write_record(record_file, product)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"{path}: the disk is full; free some space and run the same command again, it continues") from error
        raise
    for stale in path.parent.glob(f".{path.name}.partial-*"):
        _remove(stale)
    return product


def recorded(records: Path, name: str) -> Product:
    """The product as its record describes it.

    Raises:
        UserError: it has not been made yet.
    """
    record_file = records / f"{name}.json"
    if not record_file.exists():
        raise UserError(f"{name}: not made yet (no {record_file}); run the stages before it, or `caco run`")
    fields = json.loads(record_file.read_text())
    fields.pop("signature")
    return Product(**{**fields, "path": Path(fields["path"]), "reused": True})


def _reusable(record_file: Path, path: Path, mark: str) -> Product | None:
    if not record_file.exists() or not path.exists():
        return None
    record = json.loads(record_file.read_text())
    if record["fingerprint"] != mark or record["path"] != str(path):
        return None
    product = recorded(record_file.parent, record_file.stem)
    product = Product(**{**asdict(product), "name": record["name"]})
    if record["signature"] != _signature(path):
        # touched since (a `dvc checkout`, a copy): the bytes decide
        if content_hash(path) != record["content_hash"]:
            return None
        _write_record(record_file, product)
    return product


def _write_record(record_file: Path, product: Product) -> None:
    fields = {**asdict(product), "path": str(product.path), "reused": False, "signature": _signature(product.path)}
    write_atomic(record_file, json.dumps(fields, indent=1, sort_keys=True, default=str) + "\n")


def _signature(path: Path) -> str:
    """Sizes and modification times below `path`: cheap to compare before reading bytes."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    stats = [(file.relative_to(path).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def _swap(partial: Path, path: Path) -> None:
    if path.is_dir():
        aside = path.with_name(f".{path.name}.old")
        _remove(aside)
        path.replace(aside)
        partial.replace(path)
        _remove(aside)
    else:
        partial.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
