"""Tables of facts: reading Parquet, naming missing values, and the record that a suite runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caco_assets.core.errors import UserError, one_line

Frame = Any
"""A pandas DataFrame, or a column of one: type checkers cannot infer the type of `frame[name]`."""


@dataclass(frozen=True)
class Table:
    """Facts of one kind of thing in a product."""

    name: str
    """`product` or `product.things`: also the name of its suite and of its page in the data docs."""
    frame: Frame
    """One row per thing; the column `id` names it for users."""


def read_parquet(path: Path, columns: Sequence[str]) -> Frame:
    """The wanted columns of a Parquet file; one that the file lacks has all values absent.

    An absent column is a fact like any other (`missing_fields` names it), so a foreign or damaged product is reported
    instead of raising a KeyError.

    Raises:
        UserError: the file is missing, or it is not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise UserError(f"{path}: does not exist; run the stage that makes it, then validate")
    try:
        present = set(pq.read_schema(path).names)
        frame = pq.read_table(path, columns=[name for name in columns if name in present]).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({one_line(error)}); make it again") from error
    return frame.reindex(columns=list(columns))


def missing_fields(frame: Frame, columns: Sequence[str]) -> list[str]:
    """For each row the names of the columns whose value is absent, joined by commas; empty if none is absent."""
    absent = frame[list(columns)].isna()
    if not absent.to_numpy().any():
        return [""] * len(frame)
    return [",".join(name for name, gone in zip(columns, row, strict=True) if gone) for row in absent.to_numpy()]


def numbers(frame: Frame, columns: Sequence[str]) -> None:
    """Make columns numeric in place; other values become absent, and so are named by `missing_fields`."""
    import pandas as pd

    for name in columns:
        column: Frame = pd.to_numeric(frame[name], errors="coerce")
        frame[name] = column.astype("float64")


def slot_id(location_id: str, period: float, season: float) -> str:
    """`L0000012/p0s3`: a date of a place, as the archive names it."""
    return f"{location_id}/p{_digits(period)}s{_digits(season)}"


def _digits(value: float) -> str:
    return "?" if value != value else str(int(value))  # noqa: PLR0124 - NaN is the only value unlike itself
