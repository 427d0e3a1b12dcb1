"""One of several processes that train together: `python -m caco_assets.pretraining.launch.worker CONFIG`, started by a launcher.

The first speaks for all. What ends a training is left beside the target (`workplace.write_outcome`) and told by the launcher, once.
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

logger = logging.getLogger(__name__)

# Not by its own fault: the launcher asks the process that failed first.
LOST_ANOTHER = 3
_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "timed out waiting")


def main(arguments: list[str]) -> int:
    """Train this process's share of what the CONFIG file says and return the exit status."""
    from caco_assets.pretraining.training.fabric import leave

    with stop_requests() as stop, reporting() if first() else nullcontext():
        stop_with((platform.node(), os.getppid()), stop)
        status = take_part(read_config(Path(arguments[0])), stop)
        if status == 0:
            leave()
        return status


def take_part(config: RunConfig, stop: StopRequest) -> int:
    """Train this process's share; what stops it is told by the launcher."""
    try:
        return run(config, stop)
    except UserError:
        return USER_ERROR
    except RuntimeError as error:
        if not lost_another(error):
            raise
        return LOST_ANOTHER


def tell(target: Path, unknown: str) -> int:
    """Say once what ended a training of several processes, and return the exit status for all.

    Args:
        target: of the training; gets an outcome if no process could leave one.
        unknown: what is known then, the first half of a line.
    """
    outcome = read_outcome(target)
    if outcome["status"] == STOPPED:
        return 128 + outcome["signum"]
    if outcome["status"] != ERROR:
        line = (
            f"{unknown}; the others were stopped and the last checkpoint is kept: run the same command again, it goes on from "
            "there, or lower pretraining.batch_size"
        )
        write_outcome(target, ERROR, message=line)
        outcome = read_outcome(target)
    logger.info(f"pretrain: {outcome['message']}")
    return USER_ERROR


def lost_another(error: RuntimeError) -> bool:
    """Whether this says that another process is gone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or any(words in str(error).lower() for words in _LOST)


def first() -> bool:
    """Whether this process speaks for all."""
    return os.environ.get("RANK", "0") == "0"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
