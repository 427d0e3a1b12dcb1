"""One of several processes that train together: `python -m caco_assets.pretraining.member CONFIG`, started by a launcher.

The first speaks for all. What ends a training is left beside the target (`workplace.write_outcome`) and told by the launcher, once.
"""

from __future__ import annotations

import os
import platform
import sys
from contextlib import nullcontext
from pathlib import Path

from caco_assets.errors import UserError
from caco_assets.pretraining.run_config import read_config
from caco_assets.pretraining.stopping import StopRequest, stop_requests, stop_with
from caco_assets.pretraining.train import USER_ERROR, reporting, run

# Not by its own fault: the launcher asks the process that failed first.
LOST_ANOTHER = 3
_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "timed out waiting")


def main(arguments: list[str]) -> int:
    """Train this process's share of what the CONFIG file says and return the exit status."""
    with stop_requests() as stop:
        stop_with((platform.node(), os.getppid()), stop)
        try:
            return take_part(Path(arguments[0]), stop)
        except UserError:
            return USER_ERROR
        except RuntimeError as error:
            if not lost_another(error):
                raise
            return LOST_ANOTHER


def take_part(config: Path, stop: StopRequest) -> int:
    """Train this process's share and return the exit status.

    Raises:
        UserError: see `run.make_encoder`; it is written beside the target too.
    """
    from caco_assets.pretraining.fabric import leave

    with reporting() if os.environ.get("RANK", "0") == "0" else nullcontext(_quiet) as say:
        status = run(read_config(config), say, stop)
        leave()
    return status


def lost_another(error: RuntimeError) -> bool:
    """Whether this says that another process is gone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or any(words in str(error).lower() for words in _LOST)


def _quiet(line: str) -> None:
    """Says nothing."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
