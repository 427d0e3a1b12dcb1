"""Addresses of artifacts in the workspace's own MLflow database after its home folder was moved or copied.

MLflow stores absolute paths: without a correction, a moved home would write into its old place again, and a copied one would read
and write the original's files.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from caco_assets.core.errors import UserError, storage_error
from caco_assets.core.file_lock import file_lock

logger = logging.getLogger(__name__)

_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow with addresses of artifacts."""
_OURS = re.compile(r"^(?:file://)?(?P<root>/.*?/mlflow/artifacts)(?P<rest>/.*)$")


@dataclass(frozen=True)
class Foreign:
    """Addresses in a database that lead out of its own home."""

    root: Path
    """The artifact folder that they name: of the original home."""
    count: int
    lost: tuple[str, ...]
    """Folders of registered versions (relative to the artifact folder) that exist there and not in this home."""


def foreign_addresses(database: Path, artifacts: Path) -> list[Foreign]:
    """The addresses of a database that name the artifact folder of another home.

    Args:
        database: `mlflow.db`, which is only read.
        artifacts: the artifact folder of this home.

    Raises:
        UserError: the database cannot be read.
    """
    if not database.exists():
        return []
    found: dict[Path, list[str]] = {}
    versions: dict[Path, set[str]] = {}
    with _opened(database, "mode=ro") as connection:
        for table, _, _, root, rest in _addresses(connection):
            if _is_other(root, artifacts):
                found.setdefault(root, []).append(rest)
                if table == "model_versions":
                    versions.setdefault(root, set()).add(rest)
    return [
        Foreign(root, len(rests), tuple(rest for rest in sorted(versions.get(root, ())) if _is_lost(root, artifacts, rest)))
        for root, rests in sorted(found.items())
    ]


def missing_versions(database: Path, artifacts: Path) -> list[tuple[str, Path]]:
    """Registered versions of a database (`models:/name/3`) whose files are in no home, and where in this one they belong.

    Raises:
        UserError: the database cannot be read.
    """
    if not database.exists():
        return []
    with _opened(database, "mode=ro") as connection:
        if "model_versions" not in _tables(connection):
            return []
        rows = connection.execute("SELECT name, version, source FROM model_versions ORDER BY name, version").fetchall()
    found = [(f"models:/{name}/{version}", match) for name, version, source in rows if (match := _OURS.match(source or ""))]
    places = [(uri, Path(match["root"] + match["rest"]), artifacts / match["rest"].lstrip("/")) for uri, match in found]
    return [(uri, here) for uri, there, here in places if not there.exists() and not here.exists()]


def adopt(database: Path, artifacts: Path) -> None:
    """Rewrite such addresses to this home, in one transaction, after checking that the files of registered versions are here.

    Raises:
        UserError: files of a registered version were left behind, or the database cannot be read or written.
    """
    if not foreign_addresses(database, artifacts):
        return
    with file_lock(database.with_name("moved.lock"), f"MLflow database {database}"):
        for foreign in foreign_addresses(database, artifacts):
            if foreign.lost:
                raise UserError(
                    f"{database}: this home was moved or copied from {foreign.root.parents[2]}, but the files of "
                    f"{len(foreign.lost)} registered versions are still there only; copy {foreign.root} to {artifacts}, "
                    "then run the same command again"
                )
            with _opened(database, "mode=rw") as connection, connection:
                changes = [each for each in _addresses(connection) if each[3] == foreign.root]
                for table, column, value, _, rest in changes:
                    # the names are constants of this module
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (f"{artifacts}{rest}", value))  # noqa: S608
            logger.warning(
                f"MLflow: this home was moved or copied from {foreign.root.parents[2]}: {foreign.count} addresses of artifacts now "
                f"name {artifacts}; the original is not touched"
            )


def _is_other(root: Path, artifacts: Path) -> bool:
    try:
        return root != artifacts and not root.samefile(artifacts)
    except OSError:  # one of them does not exist
        return root != artifacts


def _is_lost(root: Path, artifacts: Path, rest: str) -> bool:
    return (root / rest.lstrip("/")).exists() and not (artifacts / rest.lstrip("/")).exists()


def _addresses(connection: sqlite3.Connection) -> Iterator[tuple[str, str, str, Path, str]]:
    """Table, column, value, artifact folder and the rest of each distinct address."""
    tables = _tables(connection)
    for table, column in _COLUMNS:
        if table in tables:
            for (value,) in connection.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall():  # noqa: S608
                if value and (match := _OURS.match(value)):
                    yield table, column, value, Path(match["root"]), match["rest"]


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


@contextmanager
def _opened(database: Path, mode: str) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?{mode}", uri=True, timeout=60)) as connection:
            yield connection
    except sqlite3.Error as error:
        if (plain := storage_error(error)) is not None:
            raise plain from error
        raise UserError(f"{database}: not readable as MLflow's database ({error}); restore it from a backup") from error
