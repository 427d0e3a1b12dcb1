"""One of several processes that train together: `python -m caco_assets.pretraining.launch.worker CONFIG`, started by a launcher.

Only rank zero logs. The cause of a failure is written beside the target (`run_state.write_outcome`); the launcher logs it once.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from contextlib import nullcontext
from pathlib import Path

from caco_assets.core.errors import UserError
from caco_assets.pretraining.train import USER_ERROR, reporting, run
from caco_assets.pretraining.training.run_config import RunConfig, read_config
from caco_assets.pretraining.training.run_state import ERROR, STOPPED, read_outcome, write_outcome
from caco_assets.pretraining.training.stop_request import StopRequest, stop_requests, stop_with

# under `python -m`, __name__ is "__main__", which is outside of the package's logger
logger = logging.getLogger(__spec__.name)

# Another process failed first: the launcher reports that one.
LOST_ANOTHER = 3
_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "timed out waiting")


def main(arguments: list[str]) -> int:
    """Train this process's share of the CONFIG file and return the exit status."""
    from caco_assets.pretraining.training.fabric import leave

    with stop_requests() as stop, reporting() if is_rank_zero() else nullcontext():
        stop_with((platform.node(), os.getppid()), stop)
        status = run_worker(read_config(Path(arguments[0])), stop)
        if status == 0:
            leave()
        return status


def run_worker(config: RunConfig, stop: StopRequest) -> int:
    """Train this process's share; the launcher reports failures and stops."""
    try:
        return run(config, stop)
    except UserError:
        return USER_ERROR
    except RuntimeError as error:
        if not lost_another(error):
            raise
        return LOST_ANOTHER


def report_outcome(target: Path, unknown: str) -> int:
    """Log once why a training of several processes ended, and return the exit status for all.

    Args:
        target: target of the training; gets an outcome if no process wrote one.
        unknown: first half of the message in that case.
    """
    outcome = read_outcome(target)
    if outcome["status"] == STOPPED:
        return 128 + outcome["signum"]
    if outcome["status"] != ERROR:
        line = (
            f"{unknown}; the others were stopped and the last checkpoint is kept: run the same command again, it "
            "resumes there, or lower pretraining.batch_size"
        )
        write_outcome(target, ERROR, message=line)
        outcome = read_outcome(target)
    logger.info(f"pretrain: {outcome['message']}")
    return USER_ERROR


def lost_another(error: RuntimeError) -> bool:
    """Whether the error means that another process has ended."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or any(words in str(error).lower() for words in _LOST)


def is_rank_zero() -> bool:
    """Whether this process logs and writes for all processes."""
    return os.environ.get("RANK", "0") == "0"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
