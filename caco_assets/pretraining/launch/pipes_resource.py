"""The process that trains, started through Dagster Pipes: its lines stand in the run's log, *Cancel* ends it with a checkpoint."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError

from caco_assets.pretraining.launch.separate_process import Start

# Dagster's client asks its own reader for something in preview; nobody here can do anything about it.
warnings.filterwarnings("ignore", message="Function `PipesMessageReader", category=dg.PreviewWarning)
# A step may be under way when the request comes, and a checkpoint of gigabytes may have to reach a slow disk.
_PATIENCE_S = 300.0


class TrainingProcess(dg.ConfigurableResource):
    """Starts training in processes of their own."""

    patience_s: float = _PATIENCE_S
    """How long a training that is asked to stop may take over its checkpoint."""

    def start(self, context: dg.AssetExecutionContext, before: Callable[[], object]) -> Start:
        """See `pretraining.apart`; `before` is called once, when the process is really wanted."""
        client = dg.PipesSubprocessClient(termination_timeout_seconds=self.patience_s)

        def run(arguments: list[str]) -> int:
            before()
            try:
                client.run(context=context, command=arguments)
            except DagsterPipesExecutionError as error:
                return _status(str(error))
            return 0

        return run


def _status(message: str) -> int:
    """The exit status, which Dagster gives in words alone."""
    found = re.search(r"code (-?\d+)", message)
    return int(found[1]) if found else 1
