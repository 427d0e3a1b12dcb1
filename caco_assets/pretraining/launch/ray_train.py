"""Trains in several processes on a Ray cluster: `python -m caco_assets.pretraining.launch.ray_train WORKERS CONFIG`.

The cluster is that of `RAY_ADDRESS`, else a local one that ends with the training. Each worker of Ray Train is a
`launch.worker`; all machines must share the training folder. Logs and stop requests are exchanged through
files beside that folder. Exit status: see `pretraining.train`.
"""

from __future__ import annotations

import logging
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from caco_assets.core.errors import UserError, one_line
from caco_assets.observability.logs import log_to
from caco_assets.pretraining.launch.worker import is_rank_zero, report_outcome, run_worker
from caco_assets.pretraining.train import USER_ERROR, reporting
from caco_assets.pretraining.training.run_config import RunConfig, read_config
from caco_assets.pretraining.training.run_state import DONE, forget_outcome, read_outcome, sidecar_file
from caco_assets.pretraining.training.stop_request import StopRequest, stop_requests, stop_with
from caco_assets.resources.ray_cluster import cluster

# under `python -m`, __name__ is "__main__", which is outside of the package's logger
logger = logging.getLogger(__spec__.name)

_POLL_S = 0.5
_USAGE = "usage: python -m caco_assets.pretraining.launch.ray_train WORKERS CONFIG"


def main(arguments: list[str]) -> int:
    """Train the CONFIG file on the given number of workers and return the exit status."""
    with stop_requests() as stop, reporting():
        if len(arguments) != 2 or not arguments[0].isdecimal() or int(arguments[0]) < 1:
            logger.info(_USAGE)
            return USER_ERROR
        try:
            return train_on_ray(int(arguments[0]), absolute(read_config(Path(arguments[1]))), stop)
        except UserError as error:
            logger.info(f"pretrain: {error}")
            return USER_ERROR


def train_on_ray(workers: int, config: RunConfig, stop: StopRequest) -> int:
    """Start the workers, forward the logs of rank zero and any stop request, and return the exit status.

    Raises:
        UserError: ray is not installed, or the cluster is too small.
    """
    try:
        from ray.train import FailureConfig, ScalingConfig
        from ray.train import RunConfig as RayRunConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise UserError(
            'pretraining.launcher=ray: ray is not installed here; pip install "ray[train]", or set launcher to torchrun'
        ) from error
    if read_outcome(config.target)["status"] != DONE:
        forget_outcome(config.target)
    config.target.parent.mkdir(parents=True, exist_ok=True)
    lines, stopping, begun, scratch = (sidecar_file(config.target, name) for name in ("lines", "stop", "begun", "ray"))
    lines.write_text("")
    for file in (stopping, begun):
        file.unlink(missing_ok=True)
    failure: list[BaseException] = []
    # when a machine or process is lost the others cannot continue without it: all restart from the checkpoint
    failures = FailureConfig(max_failures=config.pretraining.restarts)
    with cluster(workers):
        gpu = check_size(workers, config.pretraining.device)
        trainer = TorchTrainer(
            work,
            train_loop_config={"config": config.model_dump_json()},
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=gpu,
                resources_per_worker={"CPU": 1, "GPU": int(gpu)},
                # the same number on each machine
                placement_strategy="SPREAD" if config.pretraining.nodes > 1 else "PACK",
            ),
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            run_config=RayRunConfig(name="training", storage_path=str(scratch), failure_config=failures),
        )

        def fit() -> None:
            try:
                trainer.fit()
            except BaseException as error:
                failure.append(error)

        # in a thread: only the main thread receives signals
        running = threading.Thread(target=fit, name="ray", daemon=True)
        running.start()
        with lines.open() as reported:
            while running.is_alive():
                running.join(_POLL_S)
                for line in reported.readlines():
                    logger.info(line.rstrip("\n"))
                if stop.signum is not None and not stopping.exists():
                    stopping.write_text(str(int(stop.signum)))
    shutil.rmtree(scratch, ignore_errors=True)
    for file in (lines, stopping, begun):
        file.unlink(missing_ok=True)
    if not failure and read_outcome(config.target)["status"] == DONE:
        return 0
    cause = one_line(failure[0], limit=10_000)[-200:] if failure else "a worker has left"
    return report_outcome(config.target, f"a worker of Ray has failed ({cause})")


def work(worker_config: dict[str, Any]) -> None:
    """Train in one worker: Ray has already set its rank and process group."""
    config = RunConfig.model_validate_json(worker_config["config"])
    lines, stopping, begun = (sidecar_file(config.target, name) for name in ("lines", "stop", "begun"))

    def append(_level: int, line: str) -> None:
        with lines.open("a") as file:
            file.write(line + "\n")

    with log_to(append) if is_rank_zero() else nullcontext(), stop_request_from(stopping) as stop:
        if is_rank_zero() and begun.exists():
            logger.info("pretrain: a machine or process was lost; all have restarted from the last checkpoint")
        if is_rank_zero():
            begun.touch()
        if config.starter is not None:
            stop_with(config.starter, stop)
        run_worker(config, stop)


@contextmanager
def stop_request_from(file: Path) -> Iterator[StopRequest]:
    """A stop request triggered by a signal number written to `file`: signals do not reach workers."""
    stop, left = StopRequest(), threading.Event()

    def watch() -> None:
        while not left.wait(_POLL_S):
            if file.exists() and (text := file.read_text()):
                stop.ask(int(text))

    thread = threading.Thread(target=watch, name="watch for a stop", daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        left.set()
        thread.join()


def check_size(workers: int, device: str) -> bool:
    """Check that the cluster has a GPU, or a core, for each worker; returns whether the workers get GPUs.

    Raises:
        UserError: it has fewer.
    """
    import ray

    there = ray.cluster_resources()
    gpu = device == "cuda" or (device == "auto" and there.get("GPU", 0) >= 1)
    resource, name = ("GPU", "GPUs") if gpu else ("CPU", "cores")
    if there.get(resource, 0) < workers:
        raise UserError(
            f"pretraining.processes × nodes = {workers}: the Ray cluster has {there.get(resource, 0):.0f} {name}, and each process "
            "needs one; lower them, or start more of the cluster"
        )
    return gpu


def absolute(config: RunConfig) -> RunConfig:
    """The same config with absolute paths, for processes with other working directories."""
    paths = {name: value.absolute() for name in ("pack", "target", "probe", "truth", "parent") if (value := getattr(config, name))}
    return config.model_copy(update=paths)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
