"""The Dagster instance of a workspace: SQLite and logs under `workspace/dagster`, no telemetry, runs in order."""

from __future__ import annotations

from pathlib import Path

from caco_assets.products import write_atomic
from caco_assets.settings import Settings

_DAGSTER_YAML = """\
# Written by caco_assets; state of this workspace alone.
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 1
  pools:
    default_limit: 1
run_monitoring:
  enabled: true
  start_timeout_seconds: 300
run_retries:
  enabled: true
  max_retries: 1
"""


def dagster_home(settings: Settings) -> Path:
    """Folder for `DAGSTER_HOME`, with its `dagster.yaml`; an edited one is kept."""
    home = settings.paths.workspace / "dagster"
    config = home / "dagster.yaml"
    if not config.exists():
        write_atomic(config, _DAGSTER_YAML)
    return home
