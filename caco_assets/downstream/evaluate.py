"""Implements `caco evaluate`: scores an encoder and the baselines on any tasks and records the rows.

Rows go to `evaluations.parquet` of the profile's folder, in the format of `scores.parquet`, after every task, so that a later
failure loses nothing. The profile's own `scores.parquet` is not changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from caco_assets.core.atomic import replacing
from caco_assets.core.errors import UserError
from caco_assets.settings import Settings, TaskData

if TYPE_CHECKING:
    from caco_assets.downstream.features.baselines import Candidate
    from caco_assets.downstream.score_rows import ScoreRow
    from caco_assets.downstream.scoring.score_task import ResolvedTask
    from caco_assets.pretraining.encoder.encoder import Encoder


@dataclass(frozen=True)
class TaskRequest:
    """One task to score, with its data."""

    wanted: TaskData
    twin: bool
    """The data is an embedded twin: training is short, and published figures are not shown next to it."""

    @property
    def task_name(self) -> str:
        """Name in the rows: a twin or a subset is never mistaken for the complete data set."""
        limit = f"_limit{self.wanted.limit}" if self.wanted.limit else ""
        return f"{self.wanted.task}{'_twin' if self.twin else ''}{limit}"


def evaluate(
    settings: Settings,
    requests: Sequence[TaskRequest],
    encoder: Encoder,
    *,
    name: str,
    model_uri: str | None = None,
    with_baselines: bool = True,
    gpus: Sequence[str] = (),
) -> list[ScoreRow]:
    """Score one encoder on some tasks; every task's data is found and checked before anything is computed.

    Args:
        settings: the profile: seeds, baselines, epochs, workspace.
        requests: the tasks, each with its data.
        encoder: the candidate.
        name: of the encoder in the rows.
        model_uri: written to the rows.
        with_baselines: also score the profile's baselines; rows measured before come from the cache.
        gpus: where there are several, each task runs in its own process on the next free one (see `gpu_pool`).

    Returns:
        The rows, in the order of the tasks. They are also written to `evaluations_file`.

    Raises:
        UserError: data absent or damaged, or an encoder that needs bands the data does not have (a task that is optional is then
            reported as not measured); rows of the tasks before are kept.
    """
    from caco_assets.downstream.features.baselines import Candidate, baselines
    from caco_assets.downstream.scoring.gpu_pool import one_each
    from caco_assets.downstream.scoring.score_task import check_fits

    seeds = settings.downstream.seeds
    work = [_resolve(settings, request) for request in requests]
    candidates = [Candidate.of(name, "candidate", seeds[0], encoder, model_uri)]
    if with_baselines:
        candidates += baselines(settings.downstream.baselines, encoder, seeds)
    for _, resolved in work:
        check_fits(resolved, candidates)
    file = evaluations_file(settings)
    if len(gpus) > 1 and len(requests) > 1:
        jobs = [(settings, request, candidates, file) for request in requests]
        return [row for rows in one_each(gpus, _in_own_process, jobs) for row in rows]
    return [row for own, resolved in work for row in _score_and_record(own, resolved, candidates, file)]


def _in_own_process(settings: Settings, request: TaskRequest, candidates: Sequence[Candidate], file: Path) -> list[ScoreRow]:
    # open files cannot be pickled: the child process opens the data set itself
    return _score_and_record(*_resolve(settings, request), candidates, file)


def _score_and_record(settings: Settings, resolved: ResolvedTask, candidates: Sequence[Candidate], file: Path) -> list[ScoreRow]:
    """Score one task and record its rows at once."""
    from caco_assets.downstream.scoring.score_task import score_task

    rows = list(score_task(settings, resolved, candidates, settings.paths.cache))
    record(file, rows)
    return rows


def evaluations_file(settings: Settings) -> Path:
    """The file of rows."""
    return settings.paths.root / "evaluations.parquet"


def record(file: Path, rows: Sequence[ScoreRow]) -> None:
    """Add rows to a file; they replace older rows about the same thing. One process at a time."""
    from caco_assets.core.file_lock import file_lock

    with file_lock(file.with_name(f".{file.name}.lock"), file.name):
        _put(file, rows)


def _put(file: Path, rows: Sequence[ScoreRow]) -> None:
    from caco_assets.downstream.score_rows import read_rows, write_rows

    kept = {_about(row): row for row in (read_rows(file) if file.exists() else [])}
    # an unmeasured row may now be measured, and vice versa
    mine = {(row.row, row.encoder, row.role, row.protocol, row.data_version) for row in rows}
    kept = {
        about: row
        for about, row in kept.items()
        if row.status == "measured" or (row.row, row.encoder, row.role, row.protocol, row.data_version) not in mine
    }
    kept |= {_about(row): row for row in rows}
    with replacing(file) as scratch:
        write_rows(scratch, list(kept.values()))


def beside(file: Path, rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """These rows, and those of encoders scored before on the same data."""
    from caco_assets.downstream.score_rows import read_rows

    known = {(row.row, row.data_version) for row in rows}
    mine = {_about(row) for row in rows}
    before = read_rows(file) if file.exists() else []
    others = [row for row in before if (row.row, row.data_version) in known and _about(row) not in mine]
    return [*rows, *(row for row in others if row.status == "measured")]


def data_of(settings: Settings, task: str) -> Path | None:
    """The real data that the profile names for a task; None if there is none."""
    named = (row.data for row in settings.downstream.tasks.values() if row.task == task and row.data is not None)
    return next((path for path in named if path.exists()), None)


def _about(row: ScoreRow) -> tuple[object, ...]:
    who = (row.encoder, row.role, row.model_uri, row.seed)
    return (row.row, row.data_version, *who, row.protocol, row.method, row.size, row.metric)


def _resolve(settings: Settings, request: TaskRequest) -> tuple[Settings, ResolvedTask]:
    """The profile with only this task, its data found and checked."""
    from caco_assets.downstream.scoring.score_task import resolve_tasks

    wanted = settings.downstream
    changes: dict[str, object] = {"tasks": {request.task_name: request.wanted}}
    if request.twin:
        # twins outside the profile's benchmarks have a path, but are still twins
        changes |= dict(_twin_settings(settings))
    own = settings.model_copy(update={"downstream": wanted.model_copy(update=changes)})
    (resolved,) = resolve_tasks(own)
    if resolved.data is None:
        raise UserError(f"{request.task_name}: {resolved.reason}")
    return own, resolved


def _twin_settings(settings: Settings) -> Iterator[tuple[str, object]]:
    """Replace each section for archives by the one for twins: `fine_tune` by `fine_tune_twin`, and so on."""
    wanted: Mapping[str, object] = dict(settings.downstream)
    for name in wanted:
        if f"{name}_twin" in wanted:
            yield name, wanted[f"{name}_twin"]
