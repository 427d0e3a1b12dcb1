"""How the processes of a training are started: one command line per launcher, by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from caco_assets.settings import Pretraining

MODULE = "caco_assets.pretraining.train"
Launcher = Callable[[Path, Pretraining], list[str]]


def one_process(config: Path, options: Pretraining) -> list[str]:  # noqa: ARG001 - other launchers read it
    """This machine, one process."""
    return [sys.executable, "-m", MODULE, str(config)]


LAUNCHERS: dict[str, Launcher] = {"inline": one_process, "process": one_process}
"""Name in `pretraining.launcher` → the command line that trains what a CONFIG file says (see `train.py`)."""


def command(config: Path, options: Pretraining) -> list[str]:
    """The command line of `options.launcher`."""
    return LAUNCHERS[options.launcher](config, options)
