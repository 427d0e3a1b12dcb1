"""Trains, evaluates and registers self-supervised satellite-image encoders as Dagster assets."""

import os
from importlib import import_module
from typing import Any

# Telemetry of every library is off unless the user turns it on; the variables must be set before the libraries are imported.
_QUIET = {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}
# MLflow's server would otherwise start six processes for language-model evaluation jobs.
_LEAN = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
# Waiting OpenMP threads sleep. torch's default is to spin: where other work shares the cores (such as the threads that make views),
# spinning made a training step up to four times slower (2 cores, `benchmarks/RESULTS.md`).
_PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
for _name, _value in (_QUIET | _LEAN | _PATIENT).items():
    os.environ.setdefault(_name, _value)

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `load_encoder` on first use, so that importing the package stays cheap."""
    if name == "load_encoder":
        return import_module("caco_assets.api").load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
