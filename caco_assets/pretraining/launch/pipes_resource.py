"""Starts the training process with Dagster Pipes: its logs reach the run's event log; *Terminate* stops it with a checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import warnings
from collections.abc import Callable

import dagster as dg

from caco_assets.pretraining.launch.separate_process import Start

# Dagster's session calls a preview function of its own reader; users cannot do anything about it.
warnings.filterwarnings("ignore", message="Function `PipesMessageReader", category=dg.PreviewWarning)
# Time to finish the current step and write a checkpoint of gigabytes to a slow disk.
_PATIENCE_S = 300.0


class TrainingProcess(dg.ConfigurableResource):
    """Starts training in separate processes."""

    patience_s: float = _PATIENCE_S
    """Seconds that a training may take to write its checkpoint after a stop request."""

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
