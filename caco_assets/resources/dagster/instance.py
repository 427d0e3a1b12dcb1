"""The Dagster instance of a workspace: its `dagster.yaml` and logs under `workspace/dagster`, without telemetry."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import dagster as dg

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.core.file_lock import file_lock
from caco_assets.settings import Settings
from caco_assets.settings.deployment import DEPLOYMENTS, VARIABLE, Deployment, deployment

_BEFORE = """\
# Written by caco_assets; state of this workspace alone. Your changes stay.
telemetry:
  enabled: false
nux:
  enabled: false
python_logs:
  # progress and messages of the package stand in the run's log
  managed_python_loggers: [caco_assets]
  python_log_level: INFO
concurrency:
  runs:
    # one run at a time: the others wait in the queue
    max_concurrent_runs: 1
  pools:
    # steps that may use a pool at once; `gpu` holds training and scoring: raise it alone with
    # `dagster instance concurrency set gpu 2` where a machine has two
    default_limit: 1
    granularity: op
"""
_AFTER = """\
run_monitoring:
  enabled: true
  poll_interval_seconds: 30
  start_timeout_seconds: 300
  cancel_timeout_seconds: 600
  # slots of the pools that a killed run held
  free_slots_after_run_end_seconds: 60
run_retries:
  # a retried run goes on: finished products are reused, training goes on from its checkpoint
  # (a step that fails is no such case: it has its own retries, or says what a person has to do)
  enabled: true
  max_retries: 2
  retry_on_asset_or_op_failure: false
scheduler:
  module: dagster._core.scheduler
  class: DagsterDaemonScheduler
  config:
    # a tick that raises (a database that is locked) is tried again; otherwise its month would be lost
    max_tick_retries: 5
"""
_EARLIER = (
    "934ecfb8919498c882d15577b9a52d42a0bc8d887a6a333969b04234a26494b5",
    "186a79b924d8b2283828013f48eef9acd79de3c244fa39b1ce370ee75e701952",
    "44b8911c61e3439dfe1b07a1fb23327ec262937641ba21895079d5bcfe347aac",
    "5aa15f83429c09093b7d3ffcca049fa938bbfd096ffc498bbca58f888fb90f8d",
)
"""SHA-256 of the files that earlier versions wrote: a matching file was not edited and is replaced."""
_MOVED = {b"caco_assets.resources.launcher": b"caco_assets.resources.dagster.run_launcher"}
"""Module names that earlier versions wrote to the file → new names; they are replaced in an edited file too."""


def dagster_home(settings: Settings) -> Path:
    """Folder for `DAGSTER_HOME`, with its `dagster.yaml` for the deployment; an edited one is kept.

    Raises:
        UserError: the edited file keeps runs in SQLite although the deployment has a database.
    """
    return instance_home(settings.paths.workspace)


def instance_home(workspace: Path) -> Path:
    """`dagster_home` of a workspace, for processes that need no settings."""
    home, here = workspace / "dagster", deployment()
    config = home / "dagster.yaml"
    known = config.read_bytes() if config.exists() else None
    texts = {each.name: dagster_yaml(each) for each in DEPLOYMENTS.values()}
    ours = {*_EARLIER, *(_sha256(text.encode()) for text in texts.values())}
    if known is None or (_sha256(known) in ours and known != texts[here.name].encode()):
        write_atomic(config, texts[here.name])
        return home
    for old, new in _MOVED.items():
        if old in known:
            known = known.replace(old, new)
            write_atomic(config, known)
    if here.storage and "storage:" not in known.decode():
        raise UserError(
            f"{config}: was edited and keeps runs in SQLite, with {VARIABLE}={here.name}; delete it (it is written again), or add "
            "the section `storage` with PostgreSQL"
        )
    return home


def dagster_yaml(where: Deployment) -> str:
    """Contents of `dagster.yaml` for a deployment."""
    return _BEFORE + where.launcher + _AFTER + where.storage


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def open_instance(home: Path) -> dg.DagsterInstance:
    """Open the instance in this folder and make it `DAGSTER_HOME` of this process and its children. The caller closes it.

    Dagster creates its SQLite files on first use, and two processes that do so at once fail ("table already
    exists"), so a lock lets one wait for the other.
    """
    os.environ["DAGSTER_HOME"] = str(home)
    with file_lock(home / "open.lock", f"Dagster instance in {home}"):
        return dg.DagsterInstance.get()
