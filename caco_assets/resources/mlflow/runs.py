"""One MLflow run of one room: tags that say what it is, settings as parameters, live figures, files, the data it read."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import caco_assets
from caco_assets.core.atomic import write_atomic
from caco_assets.core.environment import environment
from caco_assets.core.errors import UserError, one_line
from caco_assets.resources.mlflow.client import RequestRefusedError, Tracking, redacted
from caco_assets.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)

# The most figures and parameters that the server takes in one request (1000 and 100 of MLflow's limits).
_METRICS_PER_CALL, _PARAMS_PER_CALL = 1000, 100
# Figures are sent this often: a live curve to the eye, and not one request per step.
FLUSH_S = 3.0
# A server that was away is asked again after so long; training must not stand still meanwhile.
RETRY_S = 60.0
# MLflow cuts off a longer digest of a data set; DVC's are 32 characters plus `.dir`.
_DIGEST_LENGTH = 36


@dataclass(frozen=True)
class Run:
    """A run that has been opened."""

    tracking: Tracking
    run_id: str
    logged: Mapping[str, int] = field(default_factory=dict)
    """Figure → last step that the run had already when it was opened: a training that goes on repeats its lines."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log figures now."""
        with MlflowSink(self) as sink:
            sink.log(step, values)

    def sink(self) -> MlflowSink:
        """A taker of live figures for training."""
        return MlflowSink(self)

    def file(self, path: Path, folder: str | None = None) -> None:
        """Attach a file (a picture, `metrics.jsonl`) or the content of a folder, under `folder` of the run.

        Raises:
            UserError: the server refuses.
        """
        client = self.tracking.client
        if path.is_dir():
            client.log_artifacts(self.run_id, str(path), folder)
        else:
            client.log_artifact(self.run_id, str(path), folder)

    def tag(self, name: str, value: str) -> None:
        """Set a tag of the run."""
        self.tracking.client.set_tag(self.run_id, name, value)

    def text(self, text: str, name: str) -> None:
        """Attach a small text file."""
        self.tracking.client.log_text(self.run_id, text, name)

    def inputs(self, data: Mapping[str, str], context: str = "training") -> None:
        """Name the data that was read.

        Args:
            data: product → its content hash, as DVC names it.
            context: what for.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        named = [
            DatasetInput(Dataset(name, digest[:_DIGEST_LENGTH], "dvc", digest), [InputTag("mlflow.data.context", context)])
            for name, digest in data.items()
        ]
        self.tracking.client.log_inputs(self.run_id, named)


@dataclass
class MlflowSink:
    """Takes figures step by step and sends them in batches. A server that is away delays figures, and never stops training."""

    run: Run
    _waiting: list[Metric] = field(default_factory=list)
    _next: float = field(default_factory=lambda: time.monotonic() + FLUSH_S)
    _away: bool = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """`values` of `step`; they are sent at most `FLUSH_S` seconds later, with those of other steps."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        logged = self.run.logged
        self._waiting += [Metric(name, float(v), now, step) for name, v in values.items() if step > logged.get(name, -1)]
        if time.monotonic() >= self._next:
            self.flush()

    def flush(self) -> None:
        """Send what waits; on failure say so once, keep it, and leave the server alone for `RETRY_S` seconds."""
        sent = 0
        try:
            for start in range(0, len(self._waiting), _METRICS_PER_CALL):
                batch = self._waiting[start : start + _METRICS_PER_CALL]
                self.run.tracking.client.log_batch(self.run.run_id, metrics=batch)
                sent += len(batch)
        except UserError as error:
            if not self._away:
                logger.info(f"MLflow does not take figures ({one_line(error, 120)}); they are kept and sent later")
            self._away, self._next = True, time.monotonic() + RETRY_S
        else:
            self._away, self._next = False, time.monotonic() + FLUSH_S
        self._waiting = self._waiting[sent:]

    def close(self) -> None:
        """Send the rest; what could not be sent is said (it is in `metrics.jsonl`)."""
        self.flush()
        if self._waiting:
            logger.info(f"MLflow: {len(self._waiting)} figures of run {self.run.run_id} were not taken; metrics.jsonl has them")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextmanager
def open_run(
    tracking: Tracking,
    room: str,
    settings: Settings,
    *,
    data: Mapping[str, str] | None = None,
    dagster_run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    goes_on: Path | None = None,
) -> Iterator[Run]:
    """A run that is finished, failed or killed together with the block.

    Args:
        tracking: the server.
        room: `pretraining`, `downstream`, `registry` …
        settings: logged as flat parameters, and profile and vintage as tags; addresses without credentials.
        data: product → content hash; logged as inputs and as tags `data.<product>`.
        dagster_run_id: the orchestrator's run.
        tags: more tags.
        goes_on: file that remembers the run until it is finished, named after the work: a call that finds it continues the run.

    Raises:
        UserError: the server refuses.
    """
    facts = {
        "room": room,
        "profile": settings.profile,
        "vintage": settings.vintage,
        "code_version": code_version(),
        **{f"environment.{name}": value for name, value in environment().items()},
        **{f"data.{name}": digest for name, digest in (data or {}).items()},
        **({"dagster_run_id": dagster_run_id} if dagster_run_id else {}),
        **(tags or {}),
    }
    run = _continued(tracking, goes_on, facts) if goes_on else None
    if (known := run) is None:
        name = f"{room} {settings.profile} {settings.vintage}"
        opened = tracking.client.create_run(tracking.experiment_id, tags=facts, run_name=name)
        run = Run(tracking, opened.info.run_id)
    try:
        if known is None:
            _log_params(run, settings)
            if data:
                run.inputs(data)
        if goes_on:
            write_atomic(goes_on, run.run_id)
        yield run
    except BaseException as error:
        # Ctrl-C and an orchestrator that ends its run are no failures; and the first error is the one to see, not a second
        # one from a server that cannot take the status
        with suppress(UserError):
            _end(run, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    _end(run, "FINISHED")
    if goes_on:
        goes_on.unlink(missing_ok=True)


def bury(tracking: Tracking, over: Callable[[str], bool]) -> list[str]:
    """Mark runs whose process was killed as killed: those that still run, though the orchestrator's run they belong to does not.

    Args:
        tracking: the server.
        over: whether a run of the orchestrator has ended; False for one that it does not know.

    Returns:
        Ids of the runs that were marked; one that is gone on with (`open_run`) runs again.

    Raises:
        UserError: the server refuses.
    """
    running = tracking.client.search_runs([tracking.experiment_id], "attributes.status = 'RUNNING'")
    dead = [run.info.run_id for run in running if over(run.data.tags.get("dagster_run_id", ""))]
    for run_id in dead:
        tracking.client.set_terminated(run_id, "KILLED")
    return dead


def _continued(tracking: Tracking, file: Path, facts: Mapping[str, str]) -> Run | None:
    """The run that a file remembers, running again, if the server still has it."""
    if not file.exists():
        return None
    client, run_id = tracking.client, file.read_text()
    try:
        found = client.get_run(run_id)
    except RequestRefusedError as error:
        if error.code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    if found.info.lifecycle_stage != "active":
        return None
    client.update_run(run_id, status="RUNNING")
    for name, value in facts.items():
        client.set_tag(run_id, name, value)
    steps = {name: max(point.step for point in client.get_metric_history(run_id, name)) for name in found.data.metrics}
    return Run(tracking, run_id, steps)


def flat_settings(settings: Settings) -> dict[str, str]:
    """`section.field` → value as text, without machine paths and without credentials."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), item)
        else:
            flat[prefix] = redacted(str(value))

    walk("", settings.model_dump(mode="json", exclude={"home": True, "registry": {"tracking_uri", "notify"}}))
    return flat


@cache
def code_version() -> str:
    """The commit of the checkout this package runs from (`…+changes` when it differs from it), else the package's version."""
    package = Path(caco_assets.__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=package.parent, capture_output=True, text=True, check=False, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # an environment inside somebody else's repository is not that repository's code
    if git("ls-files", "--error-unmatch", package.name) is None or (commit := git("rev-parse", "HEAD")) is None:
        return f"caco_assets {caco_assets.__version__}"
    return f"{commit}+changes" if git("status", "--porcelain", "--", ".") else commit


def _log_params(run: Run, settings: Settings) -> None:
    from mlflow.entities import Param

    params = [Param(key, value) for key, value in flat_settings(settings).items()]
    for start in range(0, len(params), _PARAMS_PER_CALL):
        run.tracking.client.log_batch(run.run_id, params=params[start : start + _PARAMS_PER_CALL])


def _end(run: Run, status: str) -> None:
    run.tracking.client.set_terminated(run.run_id, status)
