"""Scores candidates on one task of the profile's `downstream.tasks`: lists the evaluations and computes their rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.core.stage_versions import stage_version
from caco_assets.downstream.datasets.classification import LabelledImages, key
from caco_assets.downstream.datasets.content_hash import Hashes
from caco_assets.downstream.datasets.members import DataAbsentError
from caco_assets.downstream.datasets.segmentation import DenseImages
from caco_assets.downstream.features.baselines import Candidate
from caco_assets.downstream.features.feature_cache import FeatureCache
from caco_assets.downstream.finetuning.epoch_checkpoint import EpochCheckpoint
from caco_assets.downstream.metrics.confusion import Pixels
from caco_assets.downstream.metrics.example_masks import keep
from caco_assets.downstream.protocols.dense import DENSE_PROTOCOLS, DenseEvaluation
from caco_assets.downstream.protocols.evaluation import LARGE, Evaluation
from caco_assets.downstream.protocols.single_label import PROTOCOLS, TRAINING
from caco_assets.downstream.score_rows import RowStore, ScoreRow
from caco_assets.downstream.tasks import Task, find_task
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.settings import Dense, FineTune, Settings, TaskData

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResolvedTask:
    """One task of the profile with its data found and checked, or the reason why it cannot be measured."""

    task_name: str
    """Its key in `downstream.tasks`."""
    task: Task
    wanted: TaskData
    data: LabelledImages | DenseImages | None
    reason: str = ""

    def sizes(self, protocol: str) -> tuple[int, ...]:
        """Input sides in pixels; for a dense task the side of its tiles."""
        if self.task.dense:
            return (self.data.tile if isinstance(self.data, DenseImages) else self.wanted.tile or self.task.tile,)
        return (self.task.paper.size,) if protocol == "paper" else self.wanted.sizes

    @property
    def version(self) -> str:
        """Version of the data; empty if there is none."""
        return self.data.version if self.data else ""


def resolve_tasks(settings: Settings) -> list[ResolvedTask]:
    """Find and check the data of every row of the profile, before anything is computed.

    Args:
        settings: the profile.

    Raises:
        UserError: an unknown task, damaged data, or absent data of a row that is not optional.
    """
    found, hashes = [], Hashes(settings.paths.cache / "content")
    for row, wanted in settings.downstream.tasks.items():
        task = find_task(wanted.task)
        path = wanted.data or settings.paths.benchmarks / task.folder
        try:
            data = task.read(path, hashes)
            data = data.tiled(wanted.tile or task.tile) if isinstance(data, DenseImages) else data
            data = data.limited(wanted.limit, settings.seed)
        except DataAbsentError as absent:
            if not wanted.optional:
                hint = f"fetch it from {task.sources}" if wanted.data else "make the embedded twins first (`caco benchmarks`)"
                raise UserError(f"downstream.tasks.{row}: {absent}; {hint}, or mark the row optional") from absent
            found.append(ResolvedTask(row, task, wanted, None, str(absent)))
        else:
            found.append(ResolvedTask(row, task, wanted, data))
    return found


def score_task(settings: Settings, resolved: ResolvedTask, candidates: Sequence[Candidate], cache: Path) -> Iterator[ScoreRow]:
    """All rows of one task: every pass, candidate, size and seed; unchanged rows come from the store.

    Raises:
        UserError: damaged pixels, or an encoder that needs bands the data does not have.
    """
    for each in _passes(resolved):
        for candidate in candidates:
            if each.trains and candidate.source is not None and not isinstance(candidate.source, Encoder):
                continue  # statistics have no weights to train
            if (reason := _unfit(resolved, candidate, each)) is not None:
                yield _not_measured(settings, resolved, candidate, each, reason)
                continue
            for size, seed in _variants(settings, resolved, candidate, each):
                yield from _measured(settings, resolved, candidate, each, size, seed, FeatureCache(cache))


def check_fits(resolved: ResolvedTask, candidates: Sequence[Candidate]) -> None:
    """Refuse, before anything is computed, a candidate that needs bands which a selected task lacks.

    Raises:
        UserError: a band is missing; the message names row, band and remedy.
    """
    for each in _passes(resolved):
        for candidate in candidates:
            _unfit(resolved, candidate, each)


@dataclass(frozen=True)
class _Pass:
    """One pass over a task."""

    name: str
    """A key of `Task.protocols`."""
    run_by: str
    """A key of `PROTOCOLS`."""

    @property
    def protocol(self) -> str:
        """Protocol in the rows: fine-tuning keeps the rules of `clean` (validation picks, the test part is read once)."""
        return "clean" if self.name == "fine_tune" else self.name

    @property
    def trains(self) -> bool:
        """The encoder's own weights are trained, so results depend on the seed and only networks qualify."""
        return self.run_by in TRAINING


def _passes(resolved: ResolvedTask) -> list[_Pass]:
    """Passes in the order of the profile, fine-tuning last."""
    names = [*resolved.wanted.protocols, *(["fine_tune"] if resolved.wanted.fine_tune else [])]
    known = resolved.task.protocols
    return [_Pass(name, known[name]) for name in names if name in known]


def _unfit(resolved: ResolvedTask, candidate: Candidate, each: _Pass) -> str | None:
    """Why this candidate cannot be scored this way, or None if it can."""
    if resolved.data is None:
        return resolved.reason
    if candidate.source is None:
        return candidate.reason
    if isinstance(candidate.source, Encoder):
        bands = candidate.source.preprocessing.bands
        if each.protocol == "paper" and len(bands) != 3:
            return f"the paper protocol is RGB; this encoder takes {len(bands)} bands ({', '.join(bands)})"
        try:
            resolved.data.pixel_format.select(bands)
        except UserError as error:
            if not resolved.wanted.optional and candidate.role == "candidate":
                way_out = "give an encoder of bands it has, or leave the task out"
                raise UserError(f"downstream.tasks.{resolved.task_name}: {error}; {way_out}") from error
            return str(error)
    return None


def _variants(settings: Settings, resolved: ResolvedTask, candidate: Candidate, each: _Pass) -> Iterator[tuple[int, int]]:
    """Input sides and seeds.

    A random encoder has its own seed. Stochastic training uses all seeds of the profile (decoders in `paper` as many as
    configured), and
    data with several splits one seed per split.
    """
    seeds = settings.downstream.seeds
    if resolved.task.dense and each.protocol == "paper":
        seeds = seeds[: _decoding(settings, resolved).paper_seeds]
    data = resolved.data
    large = data is not None and len(data.parts["train"]) > LARGE
    if candidate.name == "random" and candidate.seed not in (seeds[:1] if large else seeds):
        return
    sizes = _sizes(settings, resolved, each)
    own_size = isinstance(candidate.source, Encoder)
    splits = len(data.folds) if data is not None else 0
    if candidate.name == "random":
        chosen: Sequence[int] = (candidate.seed,)
    elif splits:
        chosen = range(splits)
    else:
        # a decoder starts from random weights also in `clean`; statistics have no weights
        fixed = not own_size if resolved.task.dense else each.name == "clean"
        chosen = (candidate.seed,) if fixed else seeds
    for size in sizes if own_size else sizes[:1]:
        for seed in chosen:
            yield size, seed


def _measured(
    settings: Settings, resolved: ResolvedTask, candidate: Candidate, each: _Pass, size: int, seed: int, cache: FeatureCache
) -> list[ScoreRow]:
    """Rows of one evaluation, from the store if nothing has changed."""
    data, source = resolved.data, candidate.source
    if data is None or source is None:
        raise ValueError(f"{resolved.task_name}: {candidate.name} cannot be measured")  # checked by `_unfit`
    data = data.fold(seed)
    wanted = settings.downstream
    epochs = wanted.paper_epochs if each.protocol == "paper" else 0
    base = _base(resolved, candidate, each, size, seed)
    made_from = [stage_version("scores"), candidate.identity, data.version, resolved.task, each.name, size, seed, epochs]
    training = _decoding(settings, resolved) if resolved.task.dense else _training(settings, resolved)
    digest = key(*made_from, *([training] if each.trains or resolved.task.dense else []), wanted.bootstrap, settings.seed)
    checkpoint = EpochCheckpoint(settings.paths.cache / "training" / f"{digest}.pt")
    if isinstance(data, DenseImages):
        dense = DenseEvaluation(resolved.task, data, candidate, source, seed, cache, _decoding(settings, resolved), checkpoint)
        run = partial(DENSE_PROTOCOLS[each.run_by], dense)
    else:
        evaluation = Evaluation(
            resolved.task, data, candidate, source, size, seed, epochs, cache, _training(settings, resolved), checkpoint
        )
        run = partial(PROTOCOLS[each.run_by], evaluation)
    store = RowStore(settings.paths.root, settings.paths.cache)

    def measure() -> list[ScoreRow]:
        rows = []
        for result in run():
            items = store.write_table(key(digest, result.method), result.outcome.table())
            if isinstance(result.outcome, Pixels):
                keep(settings.paths.root / items, result.outcome.examples)
            for figure in result.outcome.figures(wanted.bootstrap, np.random.default_rng(settings.seed)):
                note = _note(candidate, data, f"{result.note}; {figure.note}" if figure.note else result.note)
                measured = replace(base, method=result.method, metric=figure.metric, data_version=data.version, note=note)
                measured = replace(measured, value=figure.value, ci_low=figure.low, ci_high=figure.high, n=result.outcome.n)
                rows.append(replace(measured, status="measured", items=items if figure.paired else None))
        return rows

    rows = store.rows(digest, measure)
    checkpoint.clear()
    several = len({row.metric for row in rows}) > 1
    figures = ", ".join(f"{row.method} {f'{row.metric} ' if several else ''}{row.value:.1%}" for row in rows)
    logger.info(f"{resolved.task_name}: {candidate.name} (seed {seed}), {each.name}, {size} px: {figures}")
    # name and role are not part of the key
    today = {"row": base.row, "encoder": base.encoder, "role": base.role, "model_uri": base.model_uri}
    return [replace(row, **today) for row in rows]


def _sizes(settings: Settings, resolved: ResolvedTask, each: _Pass) -> tuple[int, ...]:
    """Input sides in pixels; `paper` fine-tuning has its own, smaller on twins."""
    if each.name == "paper" and each.trains:
        return (_training(settings, resolved).paper_size,)
    return resolved.sizes(each.protocol)


def _training(settings: Settings, resolved: ResolvedTask) -> FineTune:
    wanted = settings.downstream
    return wanted.fine_tune if resolved.wanted.data else wanted.fine_tune_twin


def _decoding(settings: Settings, resolved: ResolvedTask) -> Dense:
    wanted = settings.downstream
    return wanted.dense if resolved.wanted.data else wanted.dense_twin


def _note(candidate: Candidate, data: LabelledImages | DenseImages, note: str) -> str:
    alone = ""
    if candidate.name == "random" and len(data.parts["train"]) > LARGE:
        alone = f"; one seed only on more than {LARGE} training images"
    return f"{note}{alone}; {data.note}"


def _base(resolved: ResolvedTask, candidate: Candidate, each: _Pass, size: int, seed: int) -> ScoreRow:
    return ScoreRow(
        row=resolved.task_name,
        task=resolved.task.name,
        encoder=candidate.name,
        role=candidate.role,
        protocol=each.protocol,
        method="fine_tune" if each.trains else "frozen_decoder" if resolved.task.dense else "linear_probe",
        size=size,
        seed=seed,
        metric=resolved.task.metric,
        value=None,
        ci_low=None,
        ci_high=None,
        n=0,
        data_version=resolved.version,
        model_uri=candidate.model_uri,
        status="not_measured",
        note="",
        items=None,
    )


def _not_measured(settings: Settings, resolved: ResolvedTask, candidate: Candidate, each: _Pass, reason: str) -> ScoreRow:
    size = _sizes(settings, resolved, each)[0]
    return replace(_base(resolved, candidate, each, size, candidate.seed), note=reason)
