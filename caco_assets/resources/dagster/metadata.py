"""Dagster metadata of products: the hash as data version, facts as typed values, pictures inline."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import dagster as dg

from caco_assets.core.products import Product

PAGES_URL = "http://127.0.0.1:3001"
"""Default address of the workspace's pages in `caco up`."""


def describe(product: Product, data_version: str | None = None, /, **extra: dg.MetadataValue) -> dg.MaterializeResult:
    """A materialization with the product's data version and metadata.

    Args:
        product: the product.
        data_version: the asset's hash, where the product's hash alone does not determine downstream results.
        extra: further metadata.
    """
    metadata: dict[str, dg.MetadataValue] = {
        "path": dg.MetadataValue.path(str(product.path)),
        "content_hash": dg.MetadataValue.text(product.content_hash),
        "reused": dg.MetadataValue.bool(product.reused),
        **facts(product.facts),
        **extra,
    }
    return dg.MaterializeResult(data_version=dg.DataVersion(data_version or product.content_hash), metadata=metadata)


def facts(values: dict[str, Any]) -> dict[str, dg.MetadataValue]:
    """Counts and figures as typed metadata."""
    return {name: _value(value) for name, value in values.items()}


def picture(source: bytes | Path, title: str) -> dg.MetadataValue:
    """A PNG shown inline in the UI."""
    png = source if isinstance(source, bytes) else source.read_bytes()
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def page(root: Path, path: Path) -> dg.MetadataValue:
    """A link to a page below the profile's folder, as `caco up` serves it (`CACO_PAGES_URL` overrides the default address)."""
    return dg.MetadataValue.url(f"{os.environ.get('CACO_PAGES_URL', PAGES_URL)}/{path.relative_to(root).as_posix()}")


def table(rows: list[dict[str, Any]]) -> dg.MetadataValue:
    """A table of at least one row; values become text, numbers or truth values."""
    return dg.MetadataValue.table([dg.TableRecord({key: _cell(value) for key, value in row.items()}) for row in rows])


def _cell(value: Any) -> str | int | float | bool | None:
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _value(value: Any) -> dg.MetadataValue:
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(value)
    if isinstance(value, (dict, list, tuple)):
        return dg.MetadataValue.json(value)
    return dg.MetadataValue.text(str(value))
