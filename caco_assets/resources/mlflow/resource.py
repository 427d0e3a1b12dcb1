"""MLflow as a Dagster resource: opens the profile's tracking server, and a run that begins with its first figure."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from caco_assets.resources.mlflow.client import ServerAwayError, Tracking, open_tracking
from caco_assets.resources.mlflow.runs import Run, bury, open_run
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)


class TrackingResource(dg.ConfigurableResource):
    """Where runs and versions are kept; the address is the profile's `registry.tracking_uri`."""

    retries: int = 3
    """So often is a step tried again that has found no server."""
    retry_s: float = 30.0
    """Seconds until it is tried again: a server that restarts is back by then."""
    _in_a_run: bool = PrivateAttr(default=False)
    _instance: dg.DagsterInstance | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Dagster calls this; a run can be asked to try again, a sensor cannot."""
        self._in_a_run, self._instance = context.run is not None, context.instance

    def open(self, settings: Settings) -> Tracking:
        """The tracking server, reachable and migrated; in a run of Dagster no run of a process that has died runs there any more.

        Raises:
            UserError: it is not; in a run of Dagster, where the server does not answer, `RetryRequested`.
        """
        with self.patience():
            server = open_tracking(settings)
            if self._in_a_run:
                bury(server, self._over)
            return server

    def _over(self, run_id: str) -> bool:
        """Whether a run has ended; other instances, which may write to the same server, know their own."""
        run = self._instance.get_run_by_id(run_id) if self._instance and run_id else None
        return run is not None and run.is_finished

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Where the server goes away while the block runs, the step is tried again; what the block does may be repeated.

        Raises:
            RetryRequested: it has gone away, and this is a run of Dagster.
        """
        try:
            yield
        except ServerAwayError as error:
            if self._in_a_run:
                logger.info(f"{error}; this step is tried again in {self.retry_s:g} s, {self.retries} times at most")
                raise dg.RetryRequested(self.retries, self.retry_s) from error
            raise


class LiveRun:
    """A taker of figures whose MLflow run is opened by the first of them: work that is reused leaves no empty run."""

    def __init__(
        self, stack: ExitStack, settings: Settings, room: str, data: Mapping[str, str], run_id: str, goes_on: Path | None
    ) -> None:
        self.run: Run | None = None
        self._goes_on = goes_on
        # figures may come from the thread that follows a training while the one that starts it begins the run
        self._lock = threading.Lock()
        self._stack, self._settings, self._room, self._data, self._run_id = stack, settings, room, data, run_id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of one step."""
        self.begin()
        self._sink.log(step, values)

    def begin(self) -> Run:
        """The run, opened if it is not yet."""
        with self._lock:
            if self.run is None:
                tracking = open_tracking(self._settings)
                named = {"data": self._data, "dagster_run_id": self._run_id, "goes_on": self._goes_on}
                opened = open_run(tracking, self._room, self._settings, **named)
                run = self._stack.enter_context(opened)
                self._sink = self._stack.enter_context(run.sink())
                self.run = run
            return self.run


@contextmanager
def live_run(
    settings: Settings, room: str, data: Mapping[str, str], dagster_run_id: str, goes_on: Path | None = None
) -> Iterator[LiveRun]:
    """A run of one room that ends with the block: finished, failed or killed; see `open_run` for `goes_on`."""
    with ExitStack() as stack:
        yield LiveRun(stack, settings, room, data, dagster_run_id, goes_on)


def run_of(tracking: Tracking, tag: str, value: str, *, whole: bool = False) -> str | None:
    """Id of the newest run that carries the tag, if there is one; `whole`: that has also ended in peace."""
    wanted = f"tags.`{tag}` = '{value}'" + (" and attributes.status = 'FINISHED'" if whole else "")
    found = tracking.client.search_runs([tracking.experiment_id], wanted, max_results=1)
    return found[0].info.run_id if found else None
