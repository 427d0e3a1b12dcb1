"""Reads Parquet files that other people's programs wrote: whatever is wrong with them is a `UserError` that names the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caco_assets.core.errors import UserError, one_line

MAX_ROWS = 20_000_000
MAX_BYTES = 8 << 30
"""Most rows and uncompressed bytes of a table that is read whole; a few kilobytes can hold any number of equal rows."""


def read_rows(
    path: Path, columns: Sequence[str] | None = None, advice: str = "fetch it again", *, max_rows: int = MAX_ROWS
) -> list[dict[str, Any]]:
    """The rows of a Parquet file, as dicts.

    Args:
        path: of the file.
        columns: those to read, if they are there; None: all.
        advice: what the user can do about a file that is not sound; ends every message.
        max_rows: a table with more is refused before it is read.

    Raises:
        UserError: missing, not a regular file, damaged, or too large.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if not path.is_file():
        reason = "there is no such file" if not path.exists() else "a folder or a device, where a file belongs"
        raise UserError(f"{path}: {reason}; {advice}")
    try:
        with parquet.ParquetFile(path) as file:
            about = file.metadata
            size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
            if about.num_rows > max_rows or size > MAX_BYTES:
                raise UserError(
                    f"{path}: {about.num_rows} rows of {size} bytes, at most {max_rows} and {MAX_BYTES} are read; {advice}"
                )
            wanted = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
            return file.read(columns=wanted).to_pylist()
    # OverflowError: a date that Python's types do not have
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: not readable as Parquet ({one_line(error, 150) or type(error).__name__}); {advice}") from error
