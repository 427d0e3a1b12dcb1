"""Data products: written atomically, reused while their inputs are unchanged, and identified by DVC's hash."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError, storage_error

_BLOCK = 1 << 20
Facts = dict[str, Any]


@dataclass(frozen=True)
class Product:
    """One finished data product on disk, which assets, DVC stages and commands pass on instead of pixels."""

    name: str
    """The product's name: the same word as its Dagster asset and its DVC stage."""
    path: Path
    """The file or folder."""
    fingerprint: str
    """sha256 over everything it was made from: stage version, settings, content hashes of its inputs."""
    content_hash: str
    """md5 as DVC computes it (`….dir` for a folder)."""
    facts: Facts = field(default_factory=dict)
    """Counts and figures for display, JSON-able."""
    reused: bool = False
    """True if the existing product was reused."""


def file_md5(path: Path) -> str:
    """md5 of a file's bytes, as DVC names a file."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def content_hash(path: Path, seen: Callable[[Path], None] = lambda _file: None) -> str:
    """The hash that DVC gives `path`: md5 of a file, or of the sorted listing of a folder, with the suffix `.dir`.

    Args:
        path: a file or a folder.
        seen: called with each file of a folder after it is read, for progress.
    """
    if path.is_file():
        return file_md5(path)
    listing = []
    for file in path.rglob("*"):
        if file.is_file():
            listing.append({"md5": file_md5(file), "relpath": file.relative_to(path).as_posix()})
            seen(file)
    listing.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def fingerprint(recipe: str, inputs: Mapping[str, Any]) -> str:
    """sha256 of a stage version and of everything that can change its result (JSON-able, order does not matter)."""
    text = json.dumps({"recipe": recipe, "inputs": inputs}, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def partial_of(path: Path, mark: str) -> Path:
    """Scratch path for the product of fingerprint `mark`; files beside it with this prefix are removed when it is finished."""
    return path.with_name(f".{path.name}.partial-{mark[:12]}")


def produce(
    name: str,
    path: Path,
    *,
    records: Path,
    recipe: str,
    inputs: Mapping[str, Any],
    make: Callable[[Path], Facts],
) -> Product:
    """Make the product at `path`, or reuse it if its fingerprint and content match its record.

    Args:
        name: the product's name; may hold `/` (`archive/shard=0003`).
        path: the finished file or folder.
        records: folder of the small JSON records, outside any tracked folder.
        recipe: version of the code that makes it (see `stage_versions.yaml`).
        inputs: everything else that determines its content.
        make: writes the product to the path it is given (a file, or a folder that it creates) and returns its facts. An
            interrupted `make` that is called again with the same fingerprint finds its partial output and may resume from it.

    Raises:
        UserError: the disk is full, read-only or closed to this user; finished work is kept.
    """
    mark = fingerprint(recipe, inputs)
    _restore(path)
    if (known := _reusable(records, name, path, mark)) is not None:
        # remove leftovers of a run that was killed after it wrote the record
        _clear(path, mark[:12])
        return known
    partial = partial_of(path, mark)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = json.loads(json.dumps(make(partial), default=_plain))
        if not partial.exists():
            raise FileNotFoundError(f"{name}: make returned without writing {partial}")
        # hashed before the swap, so that an interruption here loses no work
        product = Product(name, path, mark, content_hash(partial), facts)
        _swap(partial, path)
        _write_record(records, product)
    except UserError:
        raise
    except Exception as error:
        if (plain := storage_error(error, path)) is None:
            raise
        raise plain from error
    _clear(path)
    return product


def recorded(records: Path, name: str) -> Product:
    """Read the product from its record.

    Raises:
        UserError: it has not been made yet.
    """
    record = _read_record(records, name)
    if record is None:
        raise UserError(f"{name}: not made yet (no {records / f'{name}.json'}); run the stages before it, or `caco demo`")
    return _product(records, record)


def _reusable(records: Path, name: str, path: Path, mark: str) -> Product | None:
    record = _read_record(records, name)
    if record is None or not path.exists():
        return None
    product = _product(records, record)
    if product.fingerprint != mark or product.path != _absolute(path):
        return None
    if record["signature"] != _signature(path):
        # modification times changed (a `dvc checkout`, a copy), so compare the content
        if content_hash(path) != product.content_hash:
            return None
        _write_record(records, product)
    return product


def _read_record(records: Path, name: str) -> dict[str, Any] | None:
    record_file = records / f"{name}.json"
    if not record_file.exists():
        return None
    try:
        return json.loads(record_file.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{record_file}: not readable as JSON ({error}); delete it and run the same command again") from error


def _product(records: Path, record: Mapping[str, Any]) -> Product:
    fields = {key: record[key] for key in ("name", "fingerprint", "content_hash", "facts")}
    return Product(**fields, path=_absolute(records / record["path"]), reused=True)


def _write_record(records: Path, product: Product) -> None:
    # the path is relative to the records, so that a workspace can be moved
    where = Path(os.path.relpath(_absolute(product.path), _absolute(records))).as_posix()
    fields = {**asdict(product), "path": where, "signature": _signature(product.path)}
    fields.pop("reused")
    write_atomic(records / f"{product.name}.json", json.dumps(fields, indent=1, sort_keys=True) + "\n")


def _absolute(path: Path) -> Path:
    """Absolute path without `..`; symbolic links are kept because a workspace may be one."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps `..`, Path.resolve follows links


def _plain(value: Any) -> Any:
    """JSON equivalents of other types: paths and dates as text, numpy numbers and arrays as Python's.

    Raises:
        TypeError: any other type, whose text might differ between runs.
    """
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, date):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r}: {type(value).__name__} has no place in a fingerprint or facts; give numbers, text, lists, dicts")


def _signature(path: Path) -> str:
    """Sizes and modification times below `path`: a cheap comparison before reading bytes."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    stats = [(file.relative_to(path).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _swap(partial: Path, path: Path) -> None:
    if not path.is_dir() and not partial.is_dir():
        partial.replace(path)
        return
    # a folder cannot be replaced in one step; `_restore` undoes the first step if the second did not happen
    _remove(_aside(path))
    if path.exists():
        path.replace(_aside(path))
    partial.replace(path)
    _remove(_aside(path))


def _restore(path: Path) -> None:
    """Restore the old product if a swap was interrupted between its two steps."""
    aside = _aside(path)
    if aside.exists() and not path.exists():
        aside.replace(path)


def _clear(path: Path, mark: str = "") -> None:
    """Remove scratch files beside `path`: all of them, or those of one fingerprint."""
    for stale in path.parent.glob(f".{glob.escape(path.name)}.partial-{mark}*"):
        _remove(stale)
    _remove(_aside(path))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
