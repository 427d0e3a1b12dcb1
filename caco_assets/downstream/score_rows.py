"""Rows of `scores.parquet`, their per-item predictions, and a store that reuses unchanged rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from caco_assets.core import parquet
from caco_assets.core.atomic import replacing, write_atomic
from caco_assets.core.errors import UserError, explain_validation
from caco_assets.core.file_lock import file_lock
from caco_assets.core.foreign_files import read_json

logger = logging.getLogger(__name__)

_MAX_ROWS = 1_000_000


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class ScoreRow:
    """One score: encoder, task, protocol, value and interval."""

    row: str
    """Name in the profile."""
    task: str
    encoder: str
    role: str
    """`candidate` or `baseline`."""
    protocol: str
    method: str
    """`linear_probe`, `linear_probe_eval_bn` (`paper` only), `knn5`, `knn20`, `fine_tune`, …"""
    size: int
    seed: int
    metric: str
    value: float | None
    """In [0, 1]."""
    ci_low: float | None
    ci_high: float | None
    n: int
    """Number of test images."""
    data_version: str
    model_uri: str | None
    status: Literal["measured", "not_measured"]
    note: str
    items: str | None
    """Per-item predictions, relative to the profile's folder (`settings.paths.root`)."""


class RowStore:
    """Groups of rows measured together, stored under a key derived from everything they depend on."""

    def __init__(self, root: Path, cache: Path) -> None:
        self._root = root
        self._cache = cache / "score_rows"

    def rows(self, key: str, measure: Callable[[], Sequence[ScoreRow]]) -> list[ScoreRow]:
        """The rows stored under `key` if their per-item files still exist, else those that `measure` returns, which are stored.

        Concurrent callers with the same key (a cell of the matrix and the decision on a new version) share one measurement: the
        second
        waits for the first. All keys share a few locks; a collision only costs waiting.
        """
        file = self._cache / f"{key}.json"
        if (known := self._known(file)) is not None:
            return known
        with file_lock(self._cache / "locks" / key[:3], "these scores"):
            if (known := self._known(file)) is not None:
                return known
            measured = list(measure())
            write_atomic(file, json.dumps([asdict(row) for row in measured], indent=1) + "\n")
        return measured

    def _known(self, file: Path) -> list[ScoreRow] | None:
        if not file.exists():
            return None
        try:
            known = _checked(read_json(file), str(file))
        except UserError as error:
            logger.warning(f"scores measured again: {error}")
            return None
        return known if all(row.items is None or (self._root / row.items).exists() for row in known) else None

    def write_table(self, name: str, table: Mapping[str, Any]) -> str:
        """Write one per-item table.

        Args:
            name: of the file, without its suffix.
            table: column → values; `image` names the item.

        Returns:
            Its path relative to the profile's folder.
        """
        import pandas as pd

        relative = f"score_items/{name}.parquet"
        path = self._root / relative
        with replacing(path) as scratch:
            pd.DataFrame(table).to_parquet(scratch, index=False)
        return relative


def write_rows(path: Path, rows: Sequence[ScoreRow]) -> None:
    """Write `scores.parquet`, with the same column types whether or not anything was measured."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"size": pa.int32(), "seed": pa.int32(), "n": pa.int64()}
    kinds |= dict.fromkeys(("value", "ci_low", "ci_high"), pa.float64())
    schema = pa.schema([(field.name, kinds.get(field.name, pa.string())) for field in fields(ScoreRow)])
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=schema), path)


def read_rows(path: Path) -> list[ScoreRow]:
    """The rows of a `scores.parquet`.

    Raises:
        UserError: it is not one.
    """
    return _checked(parquet.read_rows(path, advice="score again", max_rows=_MAX_ROWS), str(path))


@cache
def _adapter() -> TypeAdapter[list[ScoreRow]]:
    return TypeAdapter(list[ScoreRow])


def _checked(rows: Any, where: str) -> list[ScoreRow]:
    """Rows whose fields are all there and of their types."""
    try:
        return _adapter().validate_python(rows)
    except ValidationError as error:
        raise UserError(f"{where}: not readable as scores ({explain_validation(error)}); score again") from error
