"""The Dagster instance of a workspace: SQLite and logs under `workspace/dagster`, no telemetry, runs in order."""

from __future__ import annotations

import hashlib
from pathlib import Path

from caco_assets.products import write_atomic
from caco_assets.settings import Settings

_DAGSTER_YAML = """\
# Written by caco_assets; state of this workspace alone. Your changes stay.
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    # one run at a time: the others wait in the queue
    max_concurrent_runs: 1
  pools:
    # steps that may use a pool at once; `gpu` holds training and scoring: raise it alone with
    # `dagster instance concurrency set gpu 2` where a machine has two
    default_limit: 1
    granularity: op
run_launcher:
  # notices runs whose process has died together with the daemon
  module: caco_assets.resources.launcher
  class: LocalRunLauncher
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
_EARLIER = ("934ecfb8919498c882d15577b9a52d42a0bc8d887a6a333969b04234a26494b5",)
"""sha256 of what earlier versions wrote: such a file was not edited, and is written anew."""


def dagster_home(settings: Settings) -> Path:
    """Folder for `DAGSTER_HOME`, with its `dagster.yaml`; an edited one is kept."""
    home = settings.paths.workspace / "dagster"
    config = home / "dagster.yaml"
    if not config.exists() or hashlib.sha256(config.read_bytes()).hexdigest() in _EARLIER:
        write_atomic(config, _DAGSTER_YAML)
    return home
