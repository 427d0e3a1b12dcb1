"""Launchers by name: the command line that starts the processes of a training."""

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


def torchrun(config: Path, options: Pretraining) -> list[str]:
    """This machine, several processes."""
    return [sys.executable, "-m", "caco_assets.pretraining.launch.torchrun", str(options.processes), str(config)]


def on_ray(config: Path, options: Pretraining) -> list[str]:
    """A Ray cluster (`RAY_ADDRESS`, or one of its own on this machine), several processes on each of its machines."""
    workers = options.processes * options.nodes
    return [sys.executable, "-m", "caco_assets.pretraining.launch.ray_train", str(workers), str(config)]


LAUNCHERS: dict[str, Launcher] = {"inline": one_process, "process": one_process, "torchrun": torchrun, "ray": on_ray}
"""Name in `pretraining.launcher` → the command line that trains a CONFIG file (see `train.py`)."""


def command(config: Path, options: Pretraining) -> list[str]:
    """The command line of `options.launcher`."""
    return LAUNCHERS[options.launcher](config, options)
