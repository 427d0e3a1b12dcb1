"""The command that trains an encoder: `python -m caco_assets.pretraining.train CONFIG`, without Dagster or MLflow.

Exit status: 0 done; 2 user error (one line on standard error); 130 or 143 stopped by SIGINT or SIGTERM, with a
checkpoint from which the same command resumes. CONFIG: see `run_config.RunConfig`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from caco_assets.core.errors import UserError, storage_error
from caco_assets.observability.logs import log_to, log_to_stderr
from caco_assets.pretraining.training.run_config import RunConfig, read_config
from caco_assets.pretraining.training.stop_request import Stopped, StopRequest, stop_requests, stop_with

# under `python -m`, __name__ is "__main__", which is outside of the package's logger
logger = logging.getLogger(__spec__.name)

USER_ERROR = 2


def main(arguments: list[str]) -> int:
    """Train the CONFIG file and return the exit status."""
    # before the imports, which take seconds: a signal in the meantime also counts as a stop request
    with stop_requests() as stop, reporting():
        if len(arguments) != 1 or arguments[0].startswith("-"):
            logger.info("usage: python -m caco_assets.pretraining.train CONFIG")
            return USER_ERROR
        try:
            return run(read_config(Path(arguments[0])), stop)
        except UserError as error:
            logger.info(f"pretrain: {error}")
            return USER_ERROR


def run(config: RunConfig, stop: StopRequest) -> int:
    """Train, and write the outcome beside the target."""
    from caco_assets.pretraining.training.pretrain import make_encoder
    from caco_assets.pretraining.training.run_state import ERROR, STOPPED, write_outcome

    if config.starter is not None:
        stop_with(config.starter, stop)
    try:
        make_encoder(config, stop=stop)
    except Exception as error:
        plain = error if isinstance(error, UserError) else storage_error(error, config.target)
        if plain is None:
            raise
        # a full disk may refuse this too: the log line is then all there is
        with suppress(OSError):
            write_outcome(config.target, ERROR, message=str(plain))
        raise plain from error
    except Stopped as stopped:
        write_outcome(config.target, STOPPED, signum=stopped.signum)
        logger.info(f"pretrain: {stopped}, with a checkpoint; the same command resumes from it")
        return stopped.status
    return 0


@contextmanager
def reporting() -> Iterator[None]:
    """Log to the Dagster run that started this process, if any, else to standard error."""
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        log_to_stderr()
        yield
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes, log_to(pipes.log.log):
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
