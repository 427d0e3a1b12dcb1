"""Self-supervised Earth-observation encoders as software-defined assets: from a point on the Earth to a registered encoder."""

import os
from importlib import import_module
from typing import Any

# No library phones home from here unless a user asks for it: these hold before any of them is imported.
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
# MLflow's server would start six processes for jobs of language-model evaluation.
_LEAN = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
# Threads that wait for each other sleep. torch's default is to spin: where other work shares the cores (our own view-making threads
# do), that made a training step up to four times slower (2 cores, `benchmarks/RESULTS.md`).
_PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
for _name, _value in (_QUIET | _LEAN | _PATIENT).items():
    os.environ.setdefault(_name, _value)

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load_encoder`, imported when it is asked for: this file is the first that everything imports, and stays light."""
    if name == "load_encoder":
        return import_module("caco_assets.api").load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
