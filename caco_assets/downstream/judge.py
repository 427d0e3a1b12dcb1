"""Judges contestants on one row of the profile's `downstream.tasks`: which trials there are, and what each yields as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from caco_assets.downstream.baselines import Contestant
from caco_assets.downstream.datasets.labelled import LabelledImages, key
from caco_assets.downstream.datasets.store import DataAbsentError
from caco_assets.downstream.features import FeatureCache
from caco_assets.downstream.metrics import accuracy, bootstrap_mean
from caco_assets.downstream.protocols import LARGE, PROTOCOLS, Trial
from caco_assets.downstream.rows import RowStore, ScoreRow
from caco_assets.downstream.tasks import Task, find_task
from caco_assets.errors import UserError
from caco_assets.pretraining.encoder import Encoder
from caco_assets.progress import Say
from caco_assets.recipes import recipe
from caco_assets.settings import Settings, TaskData


@dataclass(frozen=True)
class Assignment:
    """One row of the profile, its data found and checked; or the reason why it cannot be measured."""

    row: str
    task: Task
    wanted: TaskData
    data: LabelledImages | None
    reason: str = ""

    @property
    def version(self) -> str:
        """Of the data; empty when there is none."""
        return self.data.version if self.data else ""


def assignments(settings: Settings) -> list[Assignment]:
    """Find and check the data of every row of the profile, before anything is computed.

    Raises:
        UserError: an unknown task, damaged data, or absent data of a row that is not optional.
    """
    found = []
    for row, wanted in settings.downstream.tasks.items():
        task = find_task(wanted.task)
        path = wanted.data or settings.paths.benchmarks / task.name
        try:
            data = task.read(path).limited(wanted.limit, settings.seed)
        except DataAbsentError as absent:
            if not wanted.optional:
                hint = f"fetch it from {task.page}" if wanted.data else "make the embedded twins first (`caco benchmarks`)"
                raise UserError(f"downstream.tasks.{row}: {absent}; {hint}, or mark the row optional") from absent
            found.append(Assignment(row, task, wanted, None, str(absent)))
        else:
            found.append(Assignment(row, task, wanted, data))
    return found


def judge(
    settings: Settings, assignment: Assignment, contestants: Sequence[Contestant], cache: Path, say: Say
) -> Iterator[ScoreRow]:
    """All rows of one assignment: every protocol, contestant, size and seed; unchanged ones are not measured again.

    Raises:
        UserError: damaged pixels, or an encoder that needs bands the data does not have.
    """
    for protocol in assignment.wanted.protocols:
        for contestant in contestants:
            if (reason := _unfit(assignment, contestant, protocol)) is not None:
                yield _not_measured(assignment, contestant, protocol, reason)
                continue
            for size, seed in _variants(settings, assignment, contestant, protocol):
                yield from _measured(settings, assignment, contestant, protocol, size, seed, FeatureCache(cache, say))


def _unfit(assignment: Assignment, contestant: Contestant, protocol: str) -> str | None:
    """Why this contestant cannot be judged by this protocol, or None when it can."""
    if assignment.data is None:
        return assignment.reason
    if contestant.source is None:
        return contestant.reason
    if isinstance(contestant.source, Encoder):
        bands = contestant.source.preprocessing.bands
        if protocol == "paper" and len(bands) != 3:
            return f"the paper protocol is RGB; this encoder takes {len(bands)} bands ({', '.join(bands)})"
        try:
            assignment.data.pixel_format.select(bands)
        except UserError as error:
            if not assignment.wanted.optional and contestant.role == "candidate":
                raise UserError(f"downstream.tasks.{assignment.row}: {error}; take the row out of the profile") from error
            return str(error)
    return None


def _variants(settings: Settings, assignment: Assignment, contestant: Contestant, protocol: str) -> Iterator[tuple[int, int]]:
    """Input sides and seeds. A random encoder is its own seed; the `paper` linear layer of any other has all of the profile's."""
    seeds = settings.downstream.seeds
    data = assignment.data
    if contestant.name == "random" and contestant.seed != seeds[0] and data is not None and len(data.parts["train"]) > LARGE:
        return
    sizes = (assignment.task.paper.size,) if protocol == "paper" else assignment.wanted.sizes
    own_size = isinstance(contestant.source, Encoder)
    own_seed = protocol == "clean" or contestant.name == "random"
    for size in sizes if own_size else sizes[:1]:
        for seed in (contestant.seed,) if own_seed else seeds:
            yield size, seed


def _measured(
    settings: Settings, assignment: Assignment, contestant: Contestant, protocol: str, size: int, seed: int, cache: FeatureCache
) -> list[ScoreRow]:
    """Rows of one trial, from the store where nothing has changed."""
    data, source = assignment.data, contestant.source
    if data is None or source is None:
        raise ValueError(f"{assignment.row}: {contestant.name} cannot be measured")  # `_unfit` sees to it
    epochs = settings.downstream.paper_epochs if protocol == "paper" else 0
    trial = Trial(assignment.task, data, contestant, source, size, seed, epochs, cache)
    base = _base(assignment, contestant, protocol, size, seed)
    made_from = (recipe("scores"), contestant.identity, data.version, assignment.task, protocol, size, seed, epochs)
    mark = key(*made_from, settings.downstream.bootstrap, settings.seed)
    store = RowStore(settings.paths.root, settings.paths.cache)

    def measure() -> list[ScoreRow]:
        rows = []
        for result in PROTOCOLS[protocol](trial):
            right = (result.predictions == result.part.labels).astype(np.float64)
            low, high = bootstrap_mean(right, settings.downstream.bootstrap, np.random.default_rng(settings.seed))
            items = store.write_items(key(mark, result.method), result.part.names, result.part.labels, result.predictions)
            value = accuracy(result.part.labels, result.predictions)
            note = _note(assignment, contestant, result.note)
            measured = replace(base, method=result.method, value=value, ci_low=low, ci_high=high, n=len(right), note=note)
            rows.append(replace(measured, status="measured", items=items))
        return rows

    rows = store.rows(mark, measure)
    figures = ", ".join(f"{row.method} {row.value:.1%}" for row in rows)
    cache.say(f"{assignment.row}: {contestant.name} (seed {seed}), {protocol}, {size} px: {figures}")
    # the store does not know under which name or role an encoder is judged today
    today = {"row": base.row, "encoder": base.encoder, "role": base.role, "model_uri": base.model_uri}
    return [replace(row, **today) for row in rows]


def _note(assignment: Assignment, contestant: Contestant, note: str) -> str:
    data = assignment.data
    alone = ""
    if contestant.name == "random" and data is not None and len(data.parts["train"]) > LARGE:
        alone = f"; one seed only on more than {LARGE} training images"
    return f"{note}{alone}; {data.note if data else ''}"


def _base(assignment: Assignment, contestant: Contestant, protocol: str, size: int, seed: int) -> ScoreRow:
    return ScoreRow(
        row=assignment.row,
        task=assignment.task.name,
        encoder=contestant.name,
        role=contestant.role,
        protocol=protocol,
        method="linear_probe",
        size=size,
        seed=seed,
        metric=assignment.task.metric,
        value=None,
        ci_low=None,
        ci_high=None,
        n=0,
        data_version=assignment.version,
        model_uri=contestant.model_uri,
        status="not_measured",
        note="",
        items=None,
    )


def _not_measured(assignment: Assignment, contestant: Contestant, protocol: str, reason: str) -> ScoreRow:
    size = assignment.task.paper.size if protocol == "paper" else assignment.wanted.sizes[0]
    return replace(_base(assignment, contestant, protocol, size, contestant.seed), note=reason)
