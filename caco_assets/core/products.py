"""Data products: written atomically, reused while their inputs are unchanged, and identified by DVC's hash."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError, storage_error
from caco_assets.core.foreign_files import read_object

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20
_SMALL = 16 << 20
"""Bytes of a product that are hashed each time it is reused or read (40 ms); of larger ones, sizes and times are compared."""
_LISTED = 1000
"""Files of a folder that its record lists, so that one of them can be verified alone."""
_FIELDS = {"name": str, "path": str, "fingerprint": str, "content_hash": str, "signature": str, "facts": dict}
"""Fields of a record."""
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
    return file_md5(path) if path.is_file() else folder_hash(file_md5s(path, seen))


def file_md5s(folder: Path, seen: Callable[[Path], None] = lambda _file: None) -> dict[str, str]:
    """File below a folder (relative, with `/`) → md5 of its bytes; `seen` is called with each after it is read."""
    listing = {}
    for file in folder.rglob("*"):
        if file.is_file():
            listing[file.relative_to(folder).as_posix()] = file_md5(file)
            seen(file)
    return listing


def folder_hash(files: Mapping[str, str]) -> str:
    """The hash that DVC gives a folder of these files (relative path → md5)."""
    listing = [{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]
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
        files = file_md5s(partial) if partial.is_dir() else {}
        product = Product(name, path, mark, folder_hash(files) if partial.is_dir() else file_md5(partial), facts)
        _swap(partial, path)
        _write_record(records, product, files)
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


def verified(records: Path, name: str, *, note: bool = True) -> Product:
    """Read the product from its record, and compare the bytes of a small one (`_SMALL`), sizes and times of a larger one.

    Args:
        records: folder of the records.
        name: the product's name.
        note: record other times of the same bytes, so that the next comparison is fast.

    Raises:
        UserError: it has not been made yet, is missing, or is not what was recorded.
    """
    product = recorded(records, name)
    if not product.path.exists() or not _unchanged(records, product, note=note):
        verify(records, product)
    return product


def verify(records: Path, product: Product, *files: str) -> None:
    """Compare every byte of a product with its record.

    Args:
        records: folder of the records.
        product: the product.
        files: compare only these files of a folder, if its record lists them.

    Raises:
        UserError: the product is missing, or is not what was recorded; names the file if that is known.
    """
    record = _read_record(records, product.name) or {}
    remedy = f"delete {product.path} and make `{product.name}` again, or restore it from DVC or a backup"
    if not product.path.exists():
        raise UserError(f"{product.path}: missing, though {product.name} is recorded; make it again, or restore it")
    known: dict[str, str] = record.get("files", {})
    if folder_hash(known) != product.content_hash:
        # a single file, a very large folder, or a record that an earlier version wrote
        if (found := content_hash(product.path)) != product.content_hash:
            raise UserError(f"{product.path}: its content ({found}) is not what was recorded ({product.content_hash}); {remedy}")
        return
    for name in files or sorted(known.keys() | _names(product.path)):
        file = product.path / name
        if name not in known or not file.is_file() or file_md5(file) != known[name]:
            what = "is missing" if not file.is_file() else "is not what was recorded" if name in known else "does not belong here"
            raise UserError(f"{file}: {what}; {remedy}")


def _reusable(records: Path, name: str, path: Path, mark: str) -> Product | None:
    record = _read_record(records, name)
    if record is None or not path.exists():
        return None
    product = _product(records, record)
    if product.fingerprint != mark or product.path != _absolute(path):
        return None
    if not _unchanged(records, product):
        logger.warning(f"{name}: {path} is not what was recorded (its content has changed); making it again")
        return None
    return product


def _unchanged(records: Path, product: Product, *, note: bool = True) -> bool:
    """Whether the bytes are those of the record: compared if the product is small, or if sizes or times have changed."""
    record, path = _read_record(records, product.name) or {}, product.path
    signature, size = _state(path)
    same = record.get("signature") == signature
    if same and size > _SMALL:
        return True
    if content_hash(path) != product.content_hash:
        return False
    if not same and note:
        # after a `dvc checkout` or a copy; a home that cannot be written to only loses the shortcut
        with suppress(OSError):
            _write_record(records, product, record.get("files", {}))
    return True


def _read_record(records: Path, name: str) -> dict[str, Any] | None:
    file = records / f"{name}.json"
    return read_record(file) if file.exists() else None


def read_record(file: Path) -> dict[str, Any]:
    """The fields of a product's record.

    Raises:
        UserError: it is damaged or no record.
    """
    advice = "delete it and run the same command again"
    record = read_object(file, advice)
    if wrong := [name for name, kind in _FIELDS.items() if not isinstance(record.get(name), kind)]:
        raise UserError(f"{file}: no record of a product ({', '.join(wrong)} missing or of another type); {advice}")
    files = record.get("files", {})
    if not isinstance(files, dict) or not all(isinstance(md5, str) for md5 in files.values()):
        raise UserError(f"{file}: no record of a product (files of another type); {advice}")
    return record


def _product(records: Path, record: Mapping[str, Any]) -> Product:
    fields = {key: record[key] for key in ("name", "fingerprint", "content_hash", "facts")}
    return Product(**fields, path=_absolute(records / record["path"]), reused=True)


def _write_record(records: Path, product: Product, files: Mapping[str, str]) -> None:
    # the path is relative to the records, so that a workspace can be moved
    where = Path(os.path.relpath(_absolute(product.path), _absolute(records))).as_posix()
    fields = {**asdict(product), "path": where, "signature": _state(product.path)[0]}
    fields.pop("reused")
    if 0 < len(files) <= _LISTED:
        fields["files"] = dict(files)
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


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _names(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in _files(folder)}


def _state(path: Path) -> tuple[str, int]:
    """Sizes and modification times below `path`, as a hash for a cheap comparison before reading bytes, and the total size."""
    stats = [(file.relative_to(path).as_posix(), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in _files(path)]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest(), sum(size for _, size, _ in stats)


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
