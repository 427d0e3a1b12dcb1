"""MLflow runs of the rooms: tags, settings as parameters, live metrics, files and input data."""

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

# Most metrics and parameters in one request: MLflow's limits.
_METRICS_PER_CALL, _PARAMS_PER_CALL = 1000, 100
# Seconds between requests: live curves without a request per step.
FLUSH_S = 3.0
# Pause before the next try when the server does not answer; training must not wait for it.
RETRY_S = 60.0
# MLflow truncates a longer data set digest; DVC's has 32 characters plus `.dir`.
_DIGEST_LENGTH = 36


@dataclass(frozen=True)
class Run:
    """An open run."""

    tracking: Tracking
    run_id: str
    logged: Mapping[str, int] = field(default_factory=dict)
    """Metric → last step logged before the run was resumed: a resumed training repeats earlier metrics."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics now."""
        with MlflowSink(self) as sink:
            sink.log(step, values)

    def sink(self) -> MlflowSink:
        """A sink for live metrics of a training."""
        return MlflowSink(self)

    def file(self, path: Path, folder: str | None = None) -> None:
        """Attach a file or the content of a folder, under `folder` of the run.

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
        """Log the input data.

        Args:
            data: product → content hash, as in DVC.
            context: its use.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        named = [
            DatasetInput(Dataset(name, digest[:_DIGEST_LENGTH], "dvc", digest), [InputTag("mlflow.data.context", context)])
            for name, digest in data.items()
        ]
        self.tracking.client.log_inputs(self.run_id, named)


@dataclass
class MlflowSink:
    """Takes metrics step by step and sends them in batches. An unreachable server delays metrics and never stops training."""

    run: Run
    _waiting: list[Metric] = field(default_factory=list)
    _next: float = field(default_factory=lambda: time.monotonic() + FLUSH_S)
    _away: bool = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Queue the `values` of `step`; they are sent at most `FLUSH_S` seconds later, with those of other steps."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        logged = self.run.logged
        self._waiting += [Metric(name, float(v), now, step) for name, v in values.items() if step > logged.get(name, -1)]
        if time.monotonic() >= self._next:
            self.flush()

    def flush(self) -> None:
        """Send what is queued; on failure keep it, log that once, and pause for `RETRY_S` seconds."""
        sent = 0
        try:
            for start in range(0, len(self._waiting), _METRICS_PER_CALL):
                batch = self._waiting[start : start + _METRICS_PER_CALL]
                self.run.tracking.client.log_batch(self.run.run_id, metrics=batch)
                sent += len(batch)
        except UserError as error:
            if not self._away:
                logger.info(f"MLflow does not accept metrics ({one_line(error, 120)}); they are kept and sent later")
            self._away, self._next = True, time.monotonic() + RETRY_S
        else:
            self._away, self._next = False, time.monotonic() + FLUSH_S
        self._waiting = self._waiting[sent:]

    def close(self) -> None:
        """Send the rest; log how many could not be sent (`metrics.jsonl` has them)."""
        self.flush()
        if self._waiting:
            logger.info(f"MLflow: {len(self._waiting)} metrics of run {self.run.run_id} were not sent; metrics.jsonl has them")

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
    resume_file: Path | None = None,
) -> Iterator[Run]:
    """Open a run that is finished, failed or killed together with the block.

    Args:
        tracking: the server.
        room: `pretraining`, `downstream`, `registry` …
        settings: logged as flat parameters, and profile and vintage as tags; addresses without credentials.
        data: product → content hash; logged as inputs and as tags `data.<product>`.
        dagster_run_id: the Dagster run.
        tags: more tags.
        resume_file: file, named after the work, that holds the run id until the run is finished; a call that finds it resumes the
            run.

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
    run = _resumed(tracking, resume_file, facts) if resume_file else None
    if (known := run) is None:
        name = f"{room} {settings.profile} {settings.vintage}"
        opened = tracking.client.create_run(tracking.experiment_id, tags=facts, run_name=name)
        run = Run(tracking, opened.info.run_id)
    try:
        if known is None:
            _log_params(run, settings)
            if data:
                run.inputs(data)
        if resume_file:
            write_atomic(resume_file, run.run_id)
        yield run
    except BaseException as error:
        # Ctrl-C and a terminated Dagster run are not failures; a second error, from a server that cannot take the status, must not
        # hide the first
        with suppress(UserError):
            _end(run, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    _end(run, "FINISHED")
    if resume_file:
        resume_file.unlink(missing_ok=True)


def mark_orphans_killed(tracking: Tracking, has_ended: Callable[[str], bool]) -> list[str]:
    """Mark as killed the runs whose process has died: those with status RUNNING whose Dagster run has ended.

    Args:
        tracking: the server.
        has_ended: whether a Dagster run has ended; False for an unknown one.

    Returns:
        Ids of the marked runs; a resumed run (`open_run`) is set to RUNNING again.

    Raises:
        UserError: the server refuses.
    """
    running = tracking.client.search_runs([tracking.experiment_id], "attributes.status = 'RUNNING'")
    orphans = [run.info.run_id for run in running if has_ended(run.data.tags.get("dagster_run_id", ""))]
    for run_id in orphans:
        tracking.client.set_terminated(run_id, "KILLED")
    return orphans


def _resumed(tracking: Tracking, file: Path, facts: Mapping[str, str]) -> Run | None:
    """The run whose id is in `file`, set to RUNNING, if the server still has it."""
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
    """`section.field` → value as text, without machine paths and credentials."""
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
    """The commit of the checkout that this package runs from (`…+changes` if it has changes), else the package version."""
    package = Path(caco_assets.__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=package.parent, capture_output=True, text=True, check=False, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # the package may be installed inside another repository
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
