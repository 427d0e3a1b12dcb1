"""Creates missing databases and buckets of a team's server and migrates databases to the installed versions."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from caco_assets.core.errors import UserError
from caco_assets.resources.dagster.instance import instance_home
from caco_assets.settings import find_home
from caco_assets.settings.deployment import DATABASE, STORE, deployment, read_secrets

logger = logging.getLogger(__name__)

DAGSTER, MLFLOW, LOGINS = "dagster", "mlflow", "mlflow_auth"
DATABASES = (DAGSTER, MLFLOW, LOGINS)
WAIT_S = 60.0
"""Longest wait for PostgreSQL, which initializes its files while other services start."""
_TRY_AGAIN_S = 1.0
_URIS = ("CACO_MLFLOW_ARTIFACTS", "CACO_VERSIONS__REMOTE")
_KEPT = (*_URIS, "CACO_IMAGERY__ARCHIVE")
"""Variables that name buckets; the last one is optional."""


def migrate() -> None:
    """Create what is missing and migrate what an earlier version left; idempotent.

    Raises:
        UserError: PostgreSQL or the store does not answer, or a migration failed.
    """
    read_secrets()
    deployment().require((*DATABASE, *STORE, *_URIS), os.environ)
    for name in make_databases():
        logger.info(f"migrate: made the database {name}")
    for name in make_buckets():
        logger.info(f"migrate: made the bucket {name}")
    home = instance_home(find_home() / "workspace")
    _run([sys.executable, "-m", "dagster", "instance", "migrate"], {"DAGSTER_HOME": str(home)})
    logger.info("migrate: dagster is up to date")
    # the server itself initializes an empty database; the upgrade cannot
    if _has_tables(MLFLOW):
        _run([sys.executable, "-m", "mlflow", "db", "upgrade", f"postgresql:///{MLFLOW}"])
    _run([sys.executable, "-m", "mlflow.server.auth", "db", "upgrade", "--url", f"postgresql:///{LOGINS}"])
    logger.info("migrate: mlflow is up to date")


def make_databases() -> list[str]:
    """Create the missing databases and return their names."""
    from psycopg2 import sql

    with _connected("postgres") as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        there = {name for (name,) in cursor.fetchall()}
        missing = [name for name in DATABASES if name not in there]
        for name in missing:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return missing


def make_buckets() -> list[str]:
    """Create the missing buckets of artifacts, data versions and archive and return their names."""
    from botocore.exceptions import BotoCoreError, ClientError

    wanted = {
        uri.removeprefix("s3://").partition("/")[0] for name in _KEPT if (uri := os.environ.get(name, "")).startswith("s3://")
    }
    client = store()
    try:
        there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        for name in sorted(wanted - there):
            client.create_bucket(Bucket=name)
    except (BotoCoreError, ClientError) as error:
        raise UserError(f"store {client.meta.endpoint_url}: {' '.join(str(error).split())}; check {', '.join(STORE)}") from error
    return sorted(wanted - there)


def store() -> Any:
    """A boto3 client of the S3 store, at `CACO_VERSIONS__ENDPOINT` if set, else Amazon's."""
    import boto3

    return boto3.client("s3", endpoint_url=os.environ.get("CACO_VERSIONS__ENDPOINT"), region_name=_region())


def _region() -> str:
    # a self-hosted store has no regions, but boto3 requires one
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


class _connected:  # noqa: N801 - used as a context manager
    """A cursor in one database, in autocommit mode; waits for the server."""

    def __init__(self, database: str) -> None:
        self._database = database

    def __enter__(self) -> Any:
        import psycopg2

        end = time.monotonic() + WAIT_S
        while True:
            try:
                self._connection = psycopg2.connect(dbname=self._database, connect_timeout=5)
                break
            except psycopg2.OperationalError as error:
                refused = "authentication failed" in str(error) or "does not exist" in str(error)
                if refused or time.monotonic() > end:
                    text = " ".join(str(error).split())
                    raise UserError(f"PostgreSQL: {text}; check PGHOST, PGPORT, PGUSER and PGPASSWORD") from error
                time.sleep(_TRY_AGAIN_S)
        self._connection.autocommit = True
        return self._connection.cursor()

    def __exit__(self, *error: object) -> None:
        self._connection.close()


def _has_tables(database: str) -> bool:
    with _connected(database) as cursor:
        cursor.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
        return cursor.fetchone()[0] > 0


def _run(command: list[str], environ: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env={**os.environ, **(environ or {})}, capture_output=True, text=True, check=False, cwd=Path("/")
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"{' '.join(command[2:])}: {said[-1] if said else done.returncode}; nothing else was changed, try again")
