"""Deployment types: `CACO_DEPLOYMENT` selects one of three, which determines where all state is stored.

| | `local` | `server` | `cluster` |
|---|---|---|---|
| runs, events, schedules of Dagster | SQLite in the workspace | PostgreSQL | PostgreSQL |
| a run is | a process beside the code server | a process beside the code server | a job of Kubernetes |
| MLflow | SQLite in the workspace | a server with a login | a server with a login |
| data versions | a folder in the workspace | an object store | an object store |

PostgreSQL is configured by libpq's variables (`PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`), so no address contains a password.
Any secret may be given as a file (`PGPASSWORD_FILE`): it is read when a process starts and appears in no command line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from caco_assets.core.errors import UserError
from caco_assets.settings.model import Settings

VARIABLE = "CACO_DEPLOYMENT"
DATABASE = ("PGHOST", "PGUSER", "PGPASSWORD")
"""Connection variables of PostgreSQL."""
STORE = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""Keys of an S3 store, for machines without a role that opens it."""
TRACKING = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
"""The chain's login at the MLflow server."""
MLFLOW_SERVER = (
    "MLFLOW_AUTH_ADMIN_USERNAME",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
)
"""The MLflow server's first account, its key for signing forms and its key for encrypting webhook secrets."""
SECRETS = (*DATABASE, *STORE, *TRACKING, *MLFLOW_SERVER)
"""Variables that may be given as `NAME_FILE`."""

_STORAGE = """\
storage:
  # libpq finds host, user and password in PGHOST, PGPORT, PGUSER and PGPASSWORD; by the name of the driver, since SQLAlchemy 2.1
  # would take psycopg 3, whose connections end with the block in which dagster's web server only sets their time limit
  postgres:
    postgres_url: postgresql+psycopg2:///dagster
"""
_PROCESSES = """\
run_launcher:
  # notices runs whose process has died together with the daemon
  module: caco_assets.resources.dagster.run_launcher
  class: LocalRunLauncher
"""
_JOBS = """\
run_launcher:
  module: dagster_k8s
  class: K8sRunLauncher
  config:
    service_account_name: {env: CACO_SERVICE_ACCOUNT}
    job_image: {env: CACO_JOB_IMAGE}
    job_namespace: {env: CACO_NAMESPACE}
    instance_config_map: {env: CACO_INSTANCE_CONFIG_MAP}
    dagster_home: {env: DAGSTER_HOME}
"""


@dataclass(frozen=True)
class Deployment:
    """One deployment type."""

    name: str
    needs: tuple[str, ...] = ()
    """Variables that every run needs; a secret may be given as `NAME_FILE`."""
    launcher: str = _PROCESSES
    """How a run is started: a section of `dagster.yaml`."""
    storage: str = ""
    """Where runs are kept: a section of `dagster.yaml`; none: SQLite beside it."""
    shared: bool = False
    """Whether servers keep the state; the settings must name them."""

    def require(self, names: Iterable[str], environ: Mapping[str, str]) -> None:
        """Check that variables are set.

        Raises:
            UserError: names all missing variables.
        """
        missing = [f"{name} (or {name}_FILE)" if name in SECRETS else name for name in names if not environ.get(name)]
        if missing:
            raise UserError(f"{VARIABLE}={self.name}: {', '.join(missing)}: not set; deploy/README.md says what belongs there")

    def check(self, settings: Settings) -> None:
        """Check that a shared deployment's profile keeps no shared state in the workspace.

        Raises:
            UserError: names the variable and the value it needs.
        """
        if not self.shared:
            return
        tracking, remote = settings.registry.tracking_uri or "", settings.versions.remote or ""
        if not tracking.startswith(("http://", "https://")) or "@" in tracking:
            raise UserError(
                f"{VARIABLE}={self.name}: CACO_REGISTRY__TRACKING_URI has to be the address of an MLflow server (https://…), "
                f"without a login, which is in {' and '.join(TRACKING)}"
            )
        if "://" not in remote:
            raise UserError(
                f"{VARIABLE}={self.name}: CACO_VERSIONS__REMOTE={remote or 'not set'}: has to be in an object store, such as "
                "s3://bucket/dvc"
            )


_SHARED = (*DATABASE, *TRACKING)
DEPLOYMENTS = {
    each.name: each
    for each in (
        Deployment("local"),
        Deployment("server", (*_SHARED, *STORE), storage=_STORAGE, shared=True),
        # a pod's own role opens the store
        Deployment("cluster", _SHARED, launcher=_JOBS, storage=_STORAGE, shared=True),
    )
}


def deployment(environ: Mapping[str, str] = os.environ) -> Deployment:
    """The deployment that the environment names; default `local`.

    Raises:
        UserError: there is no such deployment.
    """
    name = environ.get(VARIABLE) or "local"
    if name not in DEPLOYMENTS:
        raise UserError(f"{VARIABLE}={name}: no such deployment; choose one of {', '.join(DEPLOYMENTS)}")
    return DEPLOYMENTS[name]


def read_secrets(environ: MutableMapping[str, str] = os.environ) -> None:
    """Put the contents of `NAME_FILE` into `NAME` for this process and its children; a file wins over a value.

    Raises:
        UserError: a file cannot be read, or is empty; its content is not shown.
    """
    for name in SECRETS:
        if not (place := environ.get(f"{name}_FILE")):
            continue
        try:
            secret = Path(place).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{name}_FILE={place}: cannot be read ({type(error).__name__}); correct the path or its rights"
            ) from error
        if not secret:
            raise UserError(f"{name}_FILE={place}: is empty; write the secret into it")
        environ[name] = secret


def enter(environ: MutableMapping[str, str] = os.environ) -> Deployment:
    """Read the secrets, check the variables and return this process's deployment.

    Raises:
        UserError: one line that names what is wrong or missing.
    """
    here = deployment(environ)
    read_secrets(environ)
    here.require(here.needs, environ)
    return here
