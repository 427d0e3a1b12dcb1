"""Starts the training process with Dagster Pipes: its lines reach the run's event log, *Terminate* ends it with a checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import warnings
from collections.abc import Callable

import dagster as dg

from caco_assets.pretraining.launch.separate_process import Start

# Dagster's session calls a function of its own reader that is in preview; users can do nothing about it.
warnings.filterwarnings("ignore", message="Function `PipesMessageReader", category=dg.PreviewWarning)
# A step may be running when the request comes, and a checkpoint of gigabytes may have to reach a slow disk.
_PATIENCE_S = 300.0


class TrainingProcess(dg.ConfigurableResource):
    """Starts training in separate processes."""

    patience_s: float = _PATIENCE_S
    """How long a training that is asked to stop may take over its checkpoint."""

    def start(self, context: dg.AssetExecutionContext, before: Callable[[], object]) -> Start:
        """See `separate_process.Start`; `before` is called once, right before the process starts."""

        def run(arguments: list[str]) -> int:
            before()
            # not `PipesSubprocessClient`, which does not return the exit status
            injector, reader = dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()
            with dg.open_pipes_session(context=context, context_injector=injector, message_reader=reader) as session:
                process = subprocess.Popen(arguments, env={**os.environ, **session.get_bootstrap_env_vars()})
                try:
                    return process.wait()
                except dg.DagsterExecutionInterruptedError:
                    process.send_signal(signal.SIGINT)
                    process.wait(self.patience_s)
                    raise

        return run
