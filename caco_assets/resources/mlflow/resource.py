"""MLflow as a Dagster resource: the profile's tracking server, and runs that open on their first metrics."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from caco_assets.resources.mlflow.client import ServerAwayError, Tracking, open_tracking
from caco_assets.resources.mlflow.runs import Run, mark_orphans_killed, open_run
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)


class TrackingResource(dg.ConfigurableResource):
    """The tracking server at the profile's `registry.tracking_uri`."""

    retries: int = 3
    """How often a step is retried when the server does not answer."""
    retry_s: float = 30.0
    """Seconds until the retry; enough for a server to restart."""
    _in_a_run: bool = PrivateAttr(default=False)
    _instance: dg.DagsterInstance | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Called by Dagster; a run can be retried, a sensor cannot."""
        self._in_a_run, self._instance = context.run is not None, context.instance

    def open(self, settings: Settings) -> Tracking:
        """Open the tracking server; in a Dagster run, also mark MLflow runs of ended Dagster runs as killed.

        Raises:
            UserError: the server cannot be used; if it does not answer in a Dagster run: `RetryRequested`.
        """
        with self.retry_if_away():
            server = open_tracking(settings)
            if self._in_a_run:
                mark_orphans_killed(server, self._has_ended)
            return server

    def _has_ended(self, run_id: str) -> bool:
        """Whether a Dagster run of this instance has ended; runs of other instances on the same server are unknown here."""
        run = self._instance.get_run_by_id(run_id) if self._instance and run_id else None
        return run is not None and run.is_finished

    @contextmanager
    def retry_if_away(self) -> Iterator[None]:
        """Retry the step if the server stops answering inside the block, which must be safe to repeat.

        Raises:
            RetryRequested: it stopped answering, and this is a Dagster run.
        """
        try:
            yield
        except ServerAwayError as error:
            if self._in_a_run:
                logger.info(f"{error}; retrying this step in {self.retry_s:g} s, at most {self.retries} times")
                raise dg.RetryRequested(self.retries, self.retry_s) from error
            raise


class LiveRun:
    """A metric sink whose MLflow run is opened by the first metrics, so reused work leaves no empty run."""

    def __init__(
        self, stack: ExitStack, settings: Settings, room: str, data: Mapping[str, str], run_id: str, resume_file: Path | None
    ) -> None:
        self.run: Run | None = None
        self._resume_file = resume_file
        # the thread that tails a training may log metrics while the one that starts it opens the run
        self._lock = threading.Lock()
        self._stack, self._settings, self._room, self._data, self._run_id = stack, settings, room, data, run_id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log metrics of one step."""
        self.begin()
        self._sink.log(step, values)

    def begin(self) -> Run:
        """The run, opened if necessary."""
        with self._lock:
            if self.run is None:
                tracking = open_tracking(self._settings)
                named = {"data": self._data, "dagster_run_id": self._run_id, "resume_file": self._resume_file}
                opened = open_run(tracking, self._room, self._settings, **named)
                run = self._stack.enter_context(opened)
                self._sink = self._stack.enter_context(run.sink())
                self.run = run
            return self.run


@contextmanager
def live_run(
    settings: Settings, room: str, data: Mapping[str, str], dagster_run_id: str, resume_file: Path | None = None
) -> Iterator[LiveRun]:
    """A run of one room, finished, failed or killed together with the block; see `open_run` for `resume_file`."""
    with ExitStack() as stack:
        yield LiveRun(stack, settings, room, data, dagster_run_id, resume_file)


def run_of(tracking: Tracking, tag: str, value: str, *, finished: bool = False) -> str | None:
    """Id of the newest run with the tag, if there is one; `finished`: only of runs that finished successfully."""
    wanted = f"tags.`{tag}` = '{value}'" + (" and attributes.status = 'FINISHED'" if finished else "")
    found = tracking.client.search_runs([tracking.experiment_id], wanted, max_results=1)
    return found[0].info.run_id if found else None
