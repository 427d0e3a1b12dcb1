"""Connection to an MLflow tracking server and registry, as an object: no global tracking URI is ever set."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit, urlunsplit

from caco_assets.core.errors import UserError, chain, one_line, storage_error
from caco_assets.core.file_lock import file_lock
from caco_assets.resources.mlflow.moved_home import adopt
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

# MLflow's defaults are 7 tries of 120 s each: a server that is down would look like a hang of many minutes.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# A distant server answers within a second or two.
PING_S = 5.0
_MAY_BE_SECRET = re.compile(r"^\w[\w+.-]*://")


class ServerAwayError(UserError):
    """The tracking server does not answer; the same call may succeed later."""


class RequestRefusedError(UserError):
    """MLflow or its database refused a request."""

    def __init__(self, message: str, code: str | None) -> None:
        super().__init__(message)
        self.code = code
        """MLflow's error code, such as `RESOURCE_ALREADY_EXISTS`; None: the error came from elsewhere."""


@dataclass(frozen=True)
class Tracking:
    """One tracking server and its registry: a database in the workspace, or the user's own server."""

    uri: str
    experiment: str
    """Name of the experiment; one per profile."""
    artifacts: Path | None
    """Artifact folder for a database in the workspace; None: the server decides."""
    state: Path
    """Local folder for locks."""

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client of exactly this server; its methods raise what `mlflow_errors` raises."""
        from mlflow import MlflowClient

        # the client of a database opens it at once
        with mlflow_errors(self.uri):
            client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return cast("MlflowClient", _TranslatingClient(client, self.uri))

    @cached_property
    def experiment_id(self) -> str:
        """Id of the experiment, created on first use.

        Raises:
            UserError: the server refuses.
        """
        if (known := self.client.get_experiment_by_name(self.experiment)) is not None:
            return known.experiment_id
        location = None if self.artifacts is None else str(self.artifacts / self.experiment)
        try:
            return self.client.create_experiment(self.experiment, artifact_location=location)
        except RequestRefusedError:
            # another process has created it meanwhile
            if (known := self.client.get_experiment_by_name(self.experiment)) is None:
                raise
            return known.experiment_id

    def download(self, uri: str, folder: Path) -> Path:
        """Copy artifacts (`runs:/…`, or an address that `client` gives) into a folder that exists.

        Raises:
            ServerAwayError: the server does not answer.
            UserError: the server refuses.
            OSError: the files cannot be read or written.
        """
        from mlflow.artifacts import download_artifacts

        with mlflow_errors(self.uri):
            return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=self.uri))


class _TranslatingClient:
    """An `MlflowClient` whose calls run inside `mlflow_errors`.

    It stands before the client and is no subclass: the client's own methods call each other and rely on MLflow's exceptions.
    """

    def __init__(self, client: MlflowClient, address: str) -> None:
        self._client, self._address = client, address

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        return mlflow_errors(self._address)(value) if callable(value) else value


@contextmanager
def mlflow_errors(address: str) -> Iterator[None]:
    """Translates what MLflow raises inside into one line that names the server.

    Raises:
        ServerAwayError: the server does not answer, or breaks off in the middle of an answer.
        StorageError: the database in the workspace is on a disk that is full, read-only or closed to this user.
        RequestRefusedError: MLflow or its database refused.
    """
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, RequestException, CommandError) as error:
        if _is_away(error):
            raise ServerAwayError(
                f"tracking server {redacted(address)}: stopped answering ({type(error).__name__}); start it and run the same "
                "again: finished work is kept, and nothing is partly registered"
            ) from error
        if not address.startswith("http") and (plain := storage_error(error)) is not None:
            raise plain from error
        text = redacted_text(one_line(error, 300), address)
        raise RequestRefusedError(
            f"tracking server {redacted(address)}: {text}; check registry.tracking_uri and the server",
            getattr(error, "error_code", None),
        ) from error


def open_tracking(settings: Settings) -> Tracking:
    """The tracking server of a profile, reachable and migrated.

    Args:
        settings: `registry.tracking_uri`; none: SQLite in `<workspace>/mlflow/mlflow.db`, created on first use, and artifacts
            beside it.

    Raises:
        UserError: the server does not answer within `PING_S` seconds, the database cannot be used, or its home was moved without
            the files of its registered versions.
    """
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    # this module logs that a new database is created
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    state = settings.paths.workspace / "mlflow"
    state.mkdir(parents=True, exist_ok=True)
    uri, artifacts = _addresses(settings)
    tracking = Tracking(uri, settings.profile, artifacts, state)
    if uri.startswith(("http://", "https://")):
        _ping(uri)
    if (store := local_store(settings)) is not None:
        adopt(*store)
    fresh = uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists()
    if fresh:
        logger.info("MLflow: creating the tracking database, once (3 to 8 s)")
    start = time.monotonic()
    # a home that cannot be written to has its database, or none
    writes = uri.startswith("sqlite:///") and os.access(state, os.W_OK)
    with _one_at_a_time(state) if writes else nullcontext():
        tracking.client.search_experiments(max_results=1)
        tracking.client.search_registered_models(max_results=1)
    if fresh:
        logger.info(f"MLflow: tracking database ready after {time.monotonic() - start:.1f} s")
    return tracking


def make_database(settings: Settings) -> None:
    """Create the database of the workspace if there is none, before several processes open it.

    Raises:
        UserError: it cannot be created.
    """
    if not settings.registry.tracking_uri and not (settings.paths.workspace / "mlflow" / "mlflow.db").exists():
        open_tracking(settings)


def _one_at_a_time(state: Path) -> AbstractContextManager[None]:
    """Two processes that create or migrate one SQLite database at once would both fail."""
    return file_lock(state / "open.lock", f"MLflow's database in {state}")


def local_store(settings: Settings) -> tuple[Path, Path] | None:
    """Database and artifact folder in the workspace; None: the profile names a tracking server."""
    uri, artifacts = _addresses(settings)
    return None if artifacts is None else (Path(uri.removeprefix("sqlite:///")), artifacts)


def server_arguments(settings: Settings) -> list[str]:
    """Arguments of `mlflow server` that make it show what this profile's runs write."""
    uri, artifacts = _addresses(settings)
    if uri.startswith(("http://", "https://")):
        uri, artifacts = _local(settings)
    state = settings.paths.workspace / "mlflow"
    state.mkdir(parents=True, exist_ok=True)
    if (store := local_store(settings)) is not None:
        adopt(*store)
    destination = artifacts or state / "artifacts"
    return ["--backend-store-uri", uri, "--artifacts-destination", str(destination), "--serve-artifacts"]


def redacted(address: str) -> str:
    """A URI without user name, password and query, for tags, parameters and messages. Other text is unchanged."""
    if not _MAY_BE_SECRET.match(address):
        return address
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", "")) if host else address.partition("?")[0]


def redacted_text(text: str, address: str) -> str:
    """`text` without the credentials of `address`."""
    credentials = urlsplit(address).netloc.rpartition("@")[0]
    text = text.replace(address, redacted(address))
    return text.replace(f"{credentials}@", "") if credentials else text


def _is_away(error: BaseException) -> bool:
    """Whether the server did not answer or broke off: MLflow wraps the exceptions of its HTTP client."""
    from requests.exceptions import ChunkedEncodingError, ConnectionError, RetryError, Timeout

    # RetryError: a proxy in front of the server keeps reporting it
    return any(isinstance(each, ConnectionError | Timeout | ChunkedEncodingError | RetryError) for each in chain(error))


def _addresses(settings: Settings) -> tuple[str, Path | None]:
    return (settings.registry.tracking_uri, None) if settings.registry.tracking_uri else _local(settings)


def _local(settings: Settings) -> tuple[str, Path]:
    folder = settings.paths.workspace / "mlflow"
    return f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts"


def _ping(uri: str) -> None:
    import requests

    try:
        # any answer is enough, even a refusal: the first real request then shows the problem
        requests.get(f"{uri.rstrip('/')}/health", timeout=PING_S)
    except requests.RequestException as error:
        raise ServerAwayError(
            f"registry.tracking_uri={redacted(uri)}: no answer ({type(error).__name__}); start the server, or remove the setting "
            "to use the database in the workspace"
        ) from error
