"""Reads Parquet files that others may have written, cut or damaged: every failure is one line that names the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caco_assets.core.errors import UserError, one_line

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROWS = 20_000_000
MAX_BYTES = 8 << 30
"""Most rows and uncompressed bytes of a table that `read_rows` reads; a few kilobytes can hold any number of equal rows."""


@contextmanager
def reading_parquet(file: Path | str, advice: str = "make it again", form: str = "Parquet") -> Iterator[None]:
    """Turn every failure of reading `file` inside the block into a line for the user.

    Args:
        file: named in the line.
        advice: the way out.
        form: what the file should be.

    Raises:
        UserError: the file is missing, is a folder, may not be read, is no Parquet, lacks a column, or is cut or damaged.
    """
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{file}: does not exist; {advice}") from error
    except KeyError as error:
        raise UserError(f"{file}: not readable as {form} (lacks the column {one_line(error, 80)}); {advice}") from error
    # a damaged length asks for more memory than there is; damaged text is no UTF-8
    except (pa.ArrowException, OSError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise UserError(f"{file}: not readable as {form} ({one_line(error, 160)}); {advice}") from error


def read_parquet(
    file: Path, columns: Sequence[str] | None = None, schema: pa.Schema | None = None, advice: str = "make it again", **options: Any
) -> pa.Table:
    """A table from a Parquet file.

    Args:
        file: to read.
        columns: wanted; None: all, or those of `schema`.
        schema: types that the columns are cast to; None: as they are.
        advice: what the user should do about a file that cannot be read.
        options: of `pyarrow.parquet.read_table`.

    Raises:
        UserError: see `reading_parquet`.
    """
    import pyarrow.parquet as pq

    names = list(columns) if columns is not None else schema.names if schema is not None else None
    with reading_parquet(file, advice):
        # a column that is not there would be left out in silence
        table = pq.read_table(file, columns=names, **options)
        for name in names or []:
            if name not in table.column_names:
                raise KeyError(name)
        table = table if schema is None else table.cast(schema if names == schema.names else _part(schema, names or []))
        table.validate(full=True)
        return table


def count_rows(file: Path, advice: str = "make it again") -> int:
    """Rows of a Parquet file, from its footer.

    Raises:
        UserError: see `reading_parquet`.
    """
    import pyarrow.parquet as pq

    with reading_parquet(file, advice):
        return pq.read_metadata(file).num_rows


def read_rows(
    file: Path, columns: Sequence[str] | None = None, advice: str = "fetch it again", *, max_rows: int = MAX_ROWS
) -> list[dict[str, Any]]:
    """The rows of a table of another program, as dicts.

    Args:
        file: to read.
        columns: those to read, if they are there; None: all.
        advice: what the user can do about a file that is not sound.
        max_rows: a table with more is refused before it is read.

    Raises:
        UserError: see `reading_parquet`; or the table is too large.
    """
    from pyarrow import parquet

    if file.exists() and not file.is_file():
        raise UserError(f"{file}: a folder or a device, where a file belongs; {advice}")
    with reading_parquet(file, advice), parquet.ParquetFile(file) as table:
        about = table.metadata
        size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        if about.num_rows > max_rows or size > MAX_BYTES:
            raise UserError(f"{file}: {about.num_rows} rows of {size} bytes, at most {max_rows} and {MAX_BYTES} are read; {advice}")
        wanted = None if columns is None else [name for name in columns if name in table.schema_arrow.names]
        return table.read(columns=wanted).to_pylist()


def _part(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([schema.field(name) for name in names])
